"""Can a client reach anything of another's, by whatever endpoint, with whatever it can get?

The endpoints are those of /openapi.json: one that is new is tried too, and one that this module
does not know how to try fails it. globex is the one with something to lose; acme, or somebody in
the street, has globex's ids, room names and idempotency keys, which are no secrets.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import jwt
import pytest
import redis

from tests.acceptance.session import ENDPOINT, Caller, active_agents, wait_for

from .two import Tenant

UNKNOWN = "dsp_AAAAAAAAAAAAAAAAAAAAAA"
ORDER = {"Idempotency-Key": "order-of-globex"}
REFUSED = {401, 403, 404}
CREATE, LIST = ("post", ENDPOINT), ("get", ENDPOINT)
# What globex's own calls and its LiveKit change meanwhile, and what goes by its age.
BY_THEMSELVES = ("usher:key_uses:", "usher:webhook_seen:", "usher:pace:", "usher:window:")
METHODS = ("get", "head", "post", "put", "patch", "delete")
# A new one on every request, or after 20 wrong keys of one address there were only 429s.
addresses = (f"198.51.{high}.{low}" for high, low in itertools.product(range(256), range(256)))

Headers = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session of globex's, and what its own pages and servers know of it."""

    dispatch_id: str
    room: str
    identity: str
    token: str


@dataclass(frozen=True, kw_only=True)
class Victim:
    """What globex has."""

    tenant: Tenant
    joined: Session
    cancelled: Session
    body: Mapping[str, Any]  # what the joined one was asked for with

    @property
    def sessions(self) -> tuple[Session, ...]:
        return self.joined, self.cancelled

    @property
    def names(self) -> tuple[str, ...]:
        """Whatever must not be told to others."""
        return tuple(
            it for s in self.sessions for it in (s.dispatch_id, s.room, s.identity, s.token)
        )


def _ask(caller: Caller, body: Mapping[str, Any], headers: Headers) -> Session:
    response = caller.http.post(ENDPOINT, json=body, headers=headers)
    assert response.status_code == 200, response.text
    answer = response.json()
    return Session(
        dispatch_id=answer["dispatch_id"],
        room=answer["room_name"],
        identity=answer["participant_identity"],
        token=answer["participant_token"],
    )


def _nobody_in(tenant: Tenant, room: str) -> bool | None:
    return True if active_agents(tenant.stack, room) == {room: []} else None


@pytest.fixture(scope="module")
def victim(globex: Tenant) -> Iterator[Victim]:
    """globex with a session that has its agent, and one that it has cancelled."""
    body = {"room_name": "room-of-globex", "participant_identity": "ann-of-globex"}
    with (caller := globex.caller()).http:
        joined = _ask(caller, body, ORDER)
        cancelled = _ask(caller, {"room_name": "old-room-of-globex"}, {})
        caller.wait_for_state(joined.dispatch_id, "joined", within_s=30)
        caller.wait_for_state(cancelled.dispatch_id, "joined", within_s=30)
        for session in (joined, cancelled):
            caller.wait_until_agent_said_so(session.dispatch_id)
        assert caller.http.delete(f"{ENDPOINT}/{cancelled.dispatch_id}").status_code == 200
        wait_for("its agent has gone", lambda: _nobody_in(globex, cancelled.room), within_s=30)
        yield Victim(tenant=globex, joined=joined, cancelled=cancelled, body=body)
        caller.http.delete(f"{ENDPOINT}/{joined.dispatch_id}")


@pytest.fixture
def intruder(acme: Tenant) -> Iterator[Session]:
    """A session of acme's own, in a room of the same name as globex's."""
    with (caller := acme.caller()).http:
        own = _ask(caller, {"room_name": "room-of-globex"}, {})
        yield own
        caller.http.delete(f"{ENDPOINT}/{own.dispatch_id}")


@pytest.fixture
def street(acme: Tenant) -> Iterator[httpx.Client]:
    """Anybody who can reach the web."""
    with httpx.Client(base_url=acme.stack.web_url, timeout=10, trust_env=False) as client:
        yield client


def _token(key: str, secret: str, dispatch_id: str, *, expires_in_s: int = 600) -> str:
    claims = {
        "iss": key,
        "sub": "somebody",
        "exp": int(time.time()) + expires_in_s,
        "video": {"roomJoin": True, "room": "room-of-globex", "roomAdmin": True},
        "attributes": {"usher.dispatch_id": dispatch_id},
    }
    return jwt.encode(claims, secret, algorithm="HS256")


def bearer(credential: str, origin: str = "") -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"} | ({"Origin": origin} if origin else {})


def credentials(
    acme: Tenant, own: Session, victim: Victim, dispatch_id: str
) -> dict[str, dict[str, str]]:
    """All that somebody may show who is not globex, to get at `dispatch_id`; by its name."""
    ours, theirs = acme.stack, victim.tenant.stack
    expired = _token(
        theirs.livekit_api_key, theirs.livekit_api_secret, dispatch_id, expires_in_s=-7200
    )
    unsigned = jwt.encode(
        {"iss": theirs.livekit_api_key, "attributes": {"usher.dispatch_id": dispatch_id}},
        None,
        algorithm="none",
    )
    return {
        "acme's secret key": bearer(ours.api_key),
        "acme's secret key, on globex's page": bearer(ours.api_key, victim.tenant.page),
        "acme's page key": bearer(acme.page_key, acme.page),
        "acme's page key, on globex's page": bearer(acme.page_key, victim.tenant.page),
        "globex's page key, on acme's page": bearer(victim.tenant.page_key, acme.page),
        "globex's page key, on no page": bearer(victim.tenant.page_key),
        "acme's participant token": bearer(own.token, acme.page),
        "a token that acme has made": bearer(
            _token(ours.livekit_api_key, ours.livekit_api_secret, dispatch_id)
        ),
        "a token that acme has made in globex's name": bearer(
            _token(theirs.livekit_api_key, ours.livekit_api_secret, dispatch_id)
        ),
        "globex's expired token": bearer(expired),
        "globex's unsigned token": bearer(unsigned),
        "globex's LiveKit key": bearer(theirs.livekit_api_key),
        "a wrong key": bearer("usk_" + "a" * 43),
        "nothing": {},
    }


def send(
    http: httpx.Client,
    method: str,
    path: str,
    headers: Headers,
    **options: Any,
) -> httpx.Response:
    """The answer, read to its end unless it is a stream of events."""
    headers = {"X-Forwarded-For": next(addresses), **headers}
    with http.stream(method, path, headers=headers, **options) as response:
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            response.read()
    return response


def what_is_there(victim: Victim) -> dict[str, Any]:
    """All that globex, its LiveKit and Redis know of its sessions."""
    rooms = [session.room for session in victim.sessions]
    with (caller := victim.tenant.caller()).http:
        answers = {
            "records": [caller.record(each.dispatch_id) for each in victim.sessions],
            "list": caller.http.get(ENDPOINT).json(),
            "agents": active_agents(victim.tenant.stack, *rooms),
        }
    with redis.Redis.from_url(victim.tenant.stack.redis_url) as store:
        names = sorted(store.scan_iter("*globex*", count=1000))
        return answers | {
            name.decode(): store.dump(name)
            for name in names
            if not name.decode().startswith(BY_THEMSELVES)
        }


@pytest.fixture(autouse=True)
def nothing_of_globex_has_changed(victim: Victim) -> Iterator[None]:
    """Whatever a test has tried."""
    before = what_is_there(victim)
    yield
    assert what_is_there(victim) == before


@pytest.fixture(scope="module")
def operations(acme: Tenant) -> list[tuple[str, str]]:
    """Method and path of all that the document has."""
    api = httpx.get(f"{acme.stack.web_url}/openapi.json", trust_env=False).json()
    return [
        (method, path) for path, item in api["paths"].items() for method in item.keys() & {*METHODS}
    ]


def test_this_module_knows_how_to_try_every_endpoint(operations: list[tuple[str, str]]) -> None:
    unknown = [
        (method, path)
        for method, path in operations
        if path.startswith("/api/")
        and path.partition("{")[2].partition("}")[0] != "dispatch_id"
        and (method, path) not in (CREATE, LIST)
    ]
    assert not unknown, "say here how clients are kept apart there"
    assert {CREATE, LIST, ("delete", f"{ENDPOINT}/{{dispatch_id}}")} <= {*operations}


def test_no_endpoint_gives_anything_for_anothers_id_or_tells_that_it_is_one(
    operations: list[tuple[str, str]],
    acme: Tenant,
    victim: Victim,
    intruder: Session,
    street: httpx.Client,
) -> None:
    paths = {path for _, path in operations if "{dispatch_id}" in path}
    tried = 0
    for path, method in itertools.product(sorted(paths), METHODS):
        answers: dict[str, set[tuple[int, str, str]]] = {}
        for dispatch_id in (UNKNOWN, victim.joined.dispatch_id, victim.cancelled.dispatch_id):
            for name, headers in credentials(acme, intruder, victim, dispatch_id).items():
                url = path.replace("{dispatch_id}", dispatch_id)
                answer = send(street, method, url, headers)
                case = f"{method} {path} with {name}: {answer.status_code} {answer.text}"
                documented = (method.replace("head", "get"), path) in operations
                assert answer.status_code in (REFUSED if documented else {*REFUSED, 405}), case
                said = answer.text.replace(dispatch_id, "<id>")
                assert not [it for it in victim.names if it in said], case
                kind = answer.headers.get("content-type", "")
                answers.setdefault(name, set()).add((answer.status_code, kind, said))
                tried += 1
        # The same word for an id that is there, for one that has ended, and for none.
        assert {name: seen for name, seen in answers.items() if len(seen) > 1} == {}
    assert tried >= 4 * 6 * 3


def test_with_its_own_secret_key_anothers_dispatch_is_simply_not_there(
    operations: list[tuple[str, str]], acme: Tenant, victim: Victim, street: httpx.Client
) -> None:
    for method, path in operations:
        if "{dispatch_id}" in path:
            url = path.replace("{dispatch_id}", victim.joined.dispatch_id)
            assert send(street, method, url, bearer(acme.stack.api_key)).status_code == 404, path


def test_a_list_holds_nothing_of_anothers(
    acme: Tenant, victim: Victim, intruder: Session, street: httpx.Client
) -> None:
    with (globex := victim.tenant.caller()).http:
        cursor = globex.http.get(ENDPOINT, params={"limit": 1}).json()["next_cursor"]
    assert cursor
    for parameters in ({}, {"state": "joined"}, {"state": "cancelled"}, {"cursor": cursor}):
        answer = send(street, "get", ENDPOINT, bearer(acme.stack.api_key), params=parameters)
        assert answer.status_code == 200, answer.text
        # acme itself has a room of that name.
        for session in victim.sessions:
            assert session.dispatch_id not in answer.text
    for name, headers in credentials(acme, intruder, victim, UNKNOWN).items():
        if not name.startswith("acme's secret key"):
            answer = send(street, "get", ENDPOINT, headers)
            assert answer.status_code in (401, 403), f"{name}: {answer.text}"


def test_asking_with_anothers_names_gives_a_session_of_ones_own(
    acme: Tenant, victim: Victim, street: httpx.Client
) -> None:
    own = bearer(acme.stack.api_key)
    # With globex's key and another body: were the key not acme's own, it would be a conflict.
    for body, headers in ((victim.body, {}), ({"participant_name": "Ann"}, ORDER)):
        response = send(street, "post", ENDPOINT, {**own, **headers}, json=body)
        assert response.status_code == 200, response.text
        answer = response.json()
        send(street, "delete", f"{ENDPOINT}/{answer['dispatch_id']}", own)
        assert answer["dispatch_id"] not in victim.names
        assert answer["server_url"] == acme.stack.livekit_url
        with pytest.raises(jwt.InvalidSignatureError):
            jwt.decode(
                answer["participant_token"],
                victim.tenant.stack.livekit_api_secret,
                algorithms=["HS256"],
            )


def test_a_session_begins_only_with_a_key_of_its_client_from_a_page_of_its_own(
    acme: Tenant, victim: Victim, intruder: Session, street: httpx.Client
) -> None:
    may = {
        "acme's secret key",
        "acme's secret key, on globex's page",  # a backend's Origin is no matter
        "acme's page key",
    }
    for name, headers in credentials(acme, intruder, victim, victim.joined.dispatch_id).items():
        if name not in may:
            refused = send(street, "post", ENDPOINT, {**headers, **ORDER}, json=victim.body)
            assert refused.status_code in (401, 403), f"{name}: {refused.text}"
            assert "participant_token" not in refused.text


def test_anothers_agent_is_not_to_be_had(
    acme: Tenant, victim: Victim, street: httpx.Client
) -> None:
    body = {"room_config": {"agents": [{"agent_name": victim.tenant.own_agent}]}}
    for headers in (bearer(acme.stack.api_key), bearer(acme.page_key, acme.page)):
        refused = send(street, "post", ENDPOINT, headers, json=body)
        assert refused.status_code == 403
        assert "participant_token" not in refused.text


def test_what_is_open_to_everybody_tells_of_nobody(
    operations: list[tuple[str, str]], acme: Tenant, victim: Victim, street: httpx.Client
) -> None:
    everybodys = [(method, path) for method, path in operations if not path.startswith("/api/")]
    assert ("get", "/readyz") in everybodys
    for method, path in everybodys:
        for headers in ({}, bearer(acme.stack.api_key)):
            answer = send(street, method, path, headers)
            assert not [name for name in victim.names if name in answer.text], path


@pytest.mark.parametrize("about", ["room", "dispatch"])
def test_what_anothers_livekit_says_is_not_about_ones_rooms(
    about: str, acme: Tenant, victim: Victim, street: httpx.Client
) -> None:
    event: dict[str, Any] = {
        "event": "participant_left",
        "id": f"EV_{about}",
        "createdAt": str(int(time.time())),
        "room": {"name": victim.joined.room},
        "participant": {"identity": victim.joined.identity, "kind": "AGENT"},
    }
    if about == "dispatch":
        event["participant"]["attributes"] = {"usher.dispatch_id": victim.joined.dispatch_id}
    body = json.dumps(event).encode()
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    ours, theirs = acme.stack, victim.tenant.stack
    for key, secret, status in (
        (ours.livekit_api_key, ours.livekit_api_secret, 204),  # it may speak of its own
        (theirs.livekit_api_key, ours.livekit_api_secret, 401),
    ):
        claims = {"iss": key, "exp": int(time.time()) + 60, "sha256": digest}
        token = jwt.encode(claims, secret, algorithm="HS256")
        headers = {"Authorization": token, "Content-Type": "application/webhook+json"}
        answer = send(street, "post", "/api/v1/webhooks/livekit", headers, content=body)
        assert answer.status_code == status, answer.text
