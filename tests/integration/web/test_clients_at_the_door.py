"""What may each client do with each kind of its keys, how much of it, and from which pages?"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import jwt
import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dispatcher.clients import schema
from dispatcher.domain.quotas import PACE_MS
from dispatcher.domain.state_machine import FAILED
from dispatcher.ledger import dispatches, reports
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.client import Ledger
from tests.support.clientsfile import LIVEKIT_SECRET, Open, a_client, a_key
from tests.support.values import WAIT_S, keyspace
from web.state.abuse_limits import MAX_WRONG_KEYS

URL = "/api/v1/dispatches"
PAGE = "https://app.acme.example"
ELSEWHERE = "https://app.globex.example"
LONG_ROOM = "room-7c9e6679-7425-40de"
ACME_KEYS = (
    a_key("acme", "acme-secret"),
    a_key("acme", "acme-next"),
    a_key("acme", "acme-old", more="disabled = true"),
    a_key("acme", "acme-page", kind="publishable"),
)
ACME = a_client("acme", *ACME_KEYS, more=f'origins = ["{PAGE}"]')
GLOBEX = a_client(
    "globex",
    a_key("globex", "globex-secret"),
    a_key("globex", "globex-page", kind="publishable"),
    more=f'origins = ["{ELSEWHERE}"]',
)


class Door:
    """The application, and the file of clients that it reads."""

    def __init__(self, http: FlaskClient, path: Path) -> None:
        self.http = http
        self.path = path

    def post(self, key: str, *, origin: str = "", json: object = None) -> TestResponse:
        return self.http.post(
            URL, json=json if json is not None else {}, headers=headers(key, origin)
        )

    def get(self, path: str, key: str, *, origin: str = "") -> TestResponse:
        return self.http.get(path, headers=headers(key, origin))

    def write(self, text: str) -> None:
        """Change the file, in one step as the command does."""
        changed = self.path.with_suffix(".new")
        changed.write_text(text)
        os.replace(changed, self.path)


def headers(key: str, origin: str = "") -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"} | ({"Origin": origin} if origin else {})


@pytest.fixture
def door_for(open_with: Open, tmp_path: Path) -> Callable[[str], Door]:
    """Opens the application with a file of clients."""
    return lambda text: Door(open_with(text), tmp_path / "clients.toml")


@pytest.fixture
def door(door_for: Callable[[str], Door]) -> Door:
    """Two clients with every kind of key."""
    return door_for(ACME + GLOBEX)


def wait_until(look: Callable[[], bool]) -> None:
    until = time.monotonic() + WAIT_S
    while not look():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_each_live_key_opens_its_own_client_and_no_other(door: Door) -> None:
    for key in ("acme-secret", "acme-next"):
        answer = door.post(key).json
        assert answer["server_url"] == "wss://acme.example"
        assert door.get(f"{URL}/{answer['dispatch_id']}", key).status_code == 200
        assert door.get(f"{URL}/{answer['dispatch_id']}", "globex-secret").status_code == 404
    assert door.post("globex-secret").json["server_url"] == "wss://globex.example"
    assert door.post("acme-old").status_code == 401


def test_a_publishable_key_gets_a_session_as_somebody_whom_we_name(door: Door) -> None:
    response = door.post("acme-page", origin=PAGE, json={"participant_name": "Ann"})

    assert response.status_code == 200
    answer = response.json
    assert answer["participant_identity"].startswith("user-")
    claims = jwt.decode(answer["participant_token"], LIVEKIT_SECRET, algorithms=["HS256"])
    assert claims["name"] == "Ann"
    assert claims["sub"] == answer["participant_identity"]
    assert claims["attributes"] == {"usher.dispatch_id": answer["dispatch_id"]}
    assert claims["video"] == {
        "room": answer["room_name"],
        "roomJoin": True,
        "canPublish": True,
        "canSubscribe": True,
        "canPublishData": True,
    }


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"participant_identity": "ann"}, "participant_identity"),
        ({"participant_metadata": "m"}, "participant_metadata"),
        ({"participant_attributes": {"role": "admin"}}, "participant_attributes"),
        ({"room_name": "room-1"}, "room_name"),
        ({"room_config": {"agents": [{"agent_name": "another"}]}}, "another"),
    ],
)
def test_a_publishable_key_does_not_choose_who_where_or_what(
    body: dict[str, object], said: str, door: Door, raw: redis.Redis
) -> None:
    response = door.post("acme-page", origin=PAGE, json=body)

    assert response.status_code == 403
    assert said in response.json["detail"]
    assert not list(raw.scan_iter("usher:dispatch:*"))


def test_a_publishable_key_may_come_back_to_a_room_that_nobody_guesses(door: Door) -> None:
    first, again = (
        door.post("acme-page", origin=PAGE, json={"room_name": LONG_ROOM}).json for _ in range(2)
    )

    assert first["room_name"] == again["room_name"] == LONG_ROOM
    assert first["dispatch_id"] == again["dispatch_id"]
    assert first["participant_identity"] != again["participant_identity"]


@pytest.mark.parametrize("origin", ["", ELSEWHERE, "null", PAGE + ":8443", PAGE.upper()])
def test_a_publishable_key_opens_nothing_from_elsewhere(origin: str, door: Door) -> None:
    response = door.post("acme-page", origin=origin)

    assert response.status_code == 403
    assert "Origin" in response.json["detail"]
    assert "Access-Control-Allow-Origin" not in response.headers


def test_a_publishable_key_reads_nothing_and_the_participant_token_its_own_dispatch(
    door: Door,
) -> None:
    answer = door.post("acme-page", origin=PAGE).json
    other = door.post("acme-page", origin=PAGE).json
    status = f"{URL}/{answer['dispatch_id']}"

    refused = door.get(status, "acme-page", origin=PAGE)
    assert (refused.status_code, refused.json["title"]) == (403, "Forbidden")
    allowed = door.get(status, answer["participant_token"], origin=PAGE)
    assert allowed.json["dispatch_id"] == answer["dispatch_id"]
    assert allowed.headers["Access-Control-Allow-Origin"] == PAGE
    assert door.get(status, other["participant_token"], origin=PAGE).status_code == 401
    assert door.post(answer["participant_token"], origin=PAGE).status_code == 401


def test_clients_with_one_livekit_key_still_read_only_what_is_theirs(
    door_for: Callable[[str], Door],
) -> None:
    more = {"url": "wss://x.example", "secret": "env:TEST_LIVEKIT_SECRET"}
    more["more"] = "shared_livekit = true"
    one = a_client("one", a_key("one", "k1"), **more)
    two = a_client("two", a_key("two", "k2"), **more)
    door = door_for(one + two.replace("two-livekit-key", "one-livekit-key"))
    answers = {key: door.post(key).json for key in ("k1", "k2")}

    for key, other_key in (("k1", "k2"), ("k2", "k1")):
        token = answers[key]["participant_token"]
        path = f"{URL}/{answers[key]['dispatch_id']}"
        others = f"{URL}/{answers[other_key]['dispatch_id']}"
        assert door.get(path, token).json["dispatch_id"] == answers[key]["dispatch_id"]
        # The token's own dispatch decides, not the key that both sign with.
        assert [door.get(others + end, token).status_code for end in ("", "/events")] == [401] * 2
        assert door.get(others, key).status_code == 404
        assert door.http.delete(path, headers=headers(token)).status_code == 401
        assert door.post(token).status_code == 401
    nowhere = door.get(f"{URL}/dsp_unknown", answers["k1"]["participant_token"])
    assert nowhere.status_code == 401


def test_the_name_of_a_livekit_key_is_not_enough(door: Door) -> None:
    """Every token shows it; what counts is the secret."""
    made = door.post("globex-secret").json
    claims = jwt.decode(made["participant_token"], options={"verify_signature": False})
    path = f"{URL}/{made['dispatch_id']}"

    forged = jwt.encode(claims, LIVEKIT_SECRET, algorithm="HS256")  # acme's
    assert door.get(path, forged).status_code == 401
    own_name = jwt.encode(claims | {"iss": "acme-livekit-key"}, LIVEKIT_SECRET, algorithm="HS256")
    assert door.get(path, own_name).status_code == 404
    assert door.get(path, made["participant_token"]).status_code == 200


def test_every_route_of_the_api_is_documented(door: Door) -> None:
    """`tests/acceptance/tenants` tries what /openapi.json has, with other clients' keys."""
    documented = set(door.http.get("/openapi.json").json["paths"])
    routes = {
        re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        for rule in door.http.application.url_map.iter_rules()
    }
    missing = {route for route in routes if route.startswith("/api/")} - documented
    assert missing <= {"/api/v1/webhooks/livekit"}  # LiveKit's, not the clients'


def preflight(door: Door, origin: str, path: str = URL, method: str = "POST") -> TestResponse:
    return door.http.options(
        path,
        headers={
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
        },
    )


@pytest.mark.parametrize("path", [URL, f"{URL}/dsp_1", f"{URL}/dsp_1/events"])
def test_a_preflight_is_answered_for_the_pages_of_any_client(path: str, door: Door) -> None:
    for origin in (PAGE, ELSEWHERE):
        response = preflight(door, origin, path)
        assert response.status_code == 204
        assert response.headers["Access-Control-Allow-Origin"] == origin
        allowed = response.headers["Access-Control-Allow-Headers"].lower()
        assert {"authorization", "content-type", "idempotency-key"} <= set(allowed.split(", "))
        assert "POST" in response.headers["Access-Control-Allow-Methods"]
        assert "Origin" in response.headers["Vary"]
        assert "Access-Control-Allow-Credentials" not in response.headers


def test_a_preflight_from_elsewhere_is_refused(door: Door) -> None:
    response = preflight(door, "https://evil.example")

    assert response.status_code == 403
    assert "Access-Control-Allow-Origin" not in response.headers
    assert "Origin" in response.headers["Vary"]


def test_an_answer_is_for_the_pages_of_its_own_client(door: Door) -> None:
    for origin, allowed in ((PAGE, PAGE), (ELSEWHERE, None), ("https://evil.example", None)):
        response = door.post("acme-secret", origin=origin)
        assert response.headers.get("Access-Control-Allow-Origin") == allowed
        assert "Origin" in response.headers["Vary"]
    # Errors too, or the page could not tell why.
    wrong = door.post("acme-page", origin=PAGE, json={"room_name": 3})
    assert (wrong.status_code, wrong.headers["Access-Control-Allow-Origin"]) == (422, PAGE)
    nobody = door.post("nobody's", origin=PAGE)
    assert (nobody.status_code, nobody.headers["Access-Control-Allow-Origin"]) == (401, PAGE)
    assert (
        "Access-Control-Allow-Origin"
        not in door.post("nobody's", origin="https://evil.example").headers
    )


@pytest.fixture
def limited(door_for: Callable[[str], Door]) -> Door:
    """acme may make three requests per minute, globex any number."""
    return door_for(
        a_client("acme", a_key("acme", "a"), more="requests_per_minute = 3")
        + a_client("globex", a_key("globex", "b"))
    )


def test_requests_per_minute_end_in_a_429_that_says_when_and_writes_nothing(
    limited: Door, raw: redis.Redis
) -> None:
    door = limited
    door.post("b")
    wait_until(lambda: raw.hlen("usher:key_uses:globex") == 1)
    for _ in range(3):
        assert door.post("a", json={"room_name": "one-room"}).status_code == 200
    wait_until(lambda: raw.hlen("usher:key_uses:acme") == 1)
    wait_until(lambda: raw.llen("dispatch") == 2 and not raw.exists("usher:pace:acme"))
    wait_until(lambda: not raw.exists("usher:pace:globex"))
    before = keyspace(raw)

    refused = door.post("a", json={"room_name": "another"})

    assert refused.status_code == 429
    assert refused.content_type == "application/problem+json"
    # 20 s after the first of them; how long the machine has taken since then it knows better.
    assert 0 < int(refused.headers["Retry-After"]) <= 20
    assert "3 requests per minute" in refused.json["detail"]
    assert keyspace(raw) == before
    assert door.post("b").status_code == 200


def test_what_is_asked_beyond_the_limit_costs_redis_nothing(
    limited: Door, raw: redis.Redis
) -> None:
    door = limited
    *_, dispatch_id = [door.post("a").json["dispatch_id"] for _ in range(3)]
    assert door.post("a").status_code == 429
    wait_until(lambda: raw.hlen("usher:key_uses:acme") == 1)
    again = f"{URL}/{dispatch_id}/redispatch"
    before = raw.info("commandstats")["cmdstat_evalsha"]["calls"]

    codes = [door.post("a").status_code for _ in range(20)]
    codes += [door.http.post(again, headers=headers("a")).status_code for _ in range(20)]

    assert codes == [429] * 40
    # What the application does once a second goes on.
    assert raw.info("commandstats")["cmdstat_evalsha"]["calls"] - before < 10
    assert door.post("b").status_code == 200


def test_who_asks_for_more_at_once_than_can_be_started_in_time_is_told_to_come_back(
    door_for: Callable[[str], Door], store: Ledger, raw: redis.Redis
) -> None:
    door = door_for(
        a_client("acme", a_key("acme", "a"), more="deadline_s = 5")
        + a_client("globex", a_key("globex", "b"))
    )
    raw.set("usher:pace:acme", store.run(reports.ping()) + 489 * PACE_MS)  # as many before it

    refused = door.post("a")

    assert refused.status_code == 429
    assert "before their deadline" in refused.json["detail"]
    assert 7 <= int(refused.headers["Retry-After"]) <= 9
    assert not raw.exists("usher:due")
    assert door.post("b").status_code == 200


def test_sessions_at_once_end_in_a_429_until_one_has_ended(
    door_for: Callable[[str], Door], store: Ledger, raw: redis.Redis
) -> None:
    door = door_for(a_client("acme", a_key("acme", "a"), more="max_sessions = 2"))
    rooms = [door.post("a", json={"room_name": f"room-{n}"}) for n in (1, 2)]
    wait_until(lambda: raw.hlen("usher:key_uses:acme") == 1 and raw.llen("dispatch") == 2)
    before = keyspace(raw)

    refused = door.post("a", json={"room_name": "room-3"})

    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) == 5
    assert "2 sessions at once" in refused.json["detail"]
    assert keyspace(raw) == before
    again = door.post("a", json={"room_name": "room-1"})  # no session more
    assert again.json["dispatch_id"] == rooms[0].json["dispatch_id"]

    record = store.run(dispatches.read(rooms[0].json["dispatch_id"]))
    assert record is not None
    store.run(dispatches.advance(Advance(record, FAILED, times=Times(retention_s=60))))
    assert door.post("a", json={"room_name": "room-3"}).status_code == 200


def test_too_many_wrong_keys_are_told_to_wait_and_right_ones_pass(door: Door) -> None:
    wrong = [door.post(f"wrong-{n}") for n in range(MAX_WRONG_KEYS + 1)]

    assert [response.status_code for response in wrong] == [401] * MAX_WRONG_KEYS + [429]
    assert 0 < int(wrong[-1].headers["Retry-After"]) <= 60
    assert door.post("acme-secret").status_code == 200
    elsewhere = door.http.post(
        URL, headers=headers("wrong"), environ_base={"REMOTE_ADDR": "10.9.8.7"}
    )
    assert elsewhere.status_code == 401


def test_a_callers_own_word_for_its_address_counts_for_nothing(door: Door) -> None:
    statuses = [
        door.http.post(
            URL, headers={**headers("wrong"), "X-Forwarded-For": f"10.0.0.{n}"}
        ).status_code
        for n in range(MAX_WRONG_KEYS + 1)
    ]

    assert statuses[-1] == 429


def test_behind_a_trusted_proxy_its_word_counts(
    door_for: Callable[[str], Door], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USHER_TRUSTED_PROXIES", "1")
    door = door_for(ACME)

    def wrong(forwarded_for: str) -> int:
        sent = {**headers("wrong"), "X-Forwarded-For": forwarded_for}
        return door.http.post(URL, headers=sent).status_code

    # What the caller has sent stands before what the proxy adds.
    statuses = [wrong(f"10.0.0.{n}, 192.0.2.1") for n in range(MAX_WRONG_KEYS + 1)]
    assert statuses[-1] == 429
    assert wrong("10.0.0.1, 192.0.2.2") == 401


def test_a_body_of_ten_thousand_levels_is_refused(door: Door) -> None:
    for body in (b"[" * 10_000 + b"]" * 10_000, b'{"a":' * 10_000 + b"1" + b"}" * 10_000):
        response = door.http.post(URL, data=body, headers=headers("acme-secret"))
        assert response.status_code == 400
        assert "32 levels" in response.json["detail"]


def test_the_last_use_of_a_key_is_noted_once_a_minute(door: Door, raw: redis.Redis) -> None:
    door.post("acme-secret")
    wait_until(lambda: raw.hlen("usher:key_uses:acme") == 1)
    used_ms = int(raw.hget("usher:key_uses:acme", "acme-secret") or 0)
    assert abs(used_ms - int(raw.time()[0]) * 1000) <= 2000
    raw.delete("usher:key_uses:acme")

    door.post("acme-secret")
    door.post("acme-page", origin=PAGE)
    wait_until(lambda: raw.hlen("usher:key_uses:acme") == 1)

    assert list(raw.hgetall("usher:key_uses:acme")) == ["acme-page"]


def keys_that_open(door: Door) -> list[str]:
    # Not by asking again and again: wrong keys are counted.
    keys = ("globex-secret", "new", "newer")
    return [key for key in keys if door.http.application.extensions["usher"].clients.by_key(key)]


def test_a_changed_file_is_in_force_within_seconds_and_a_wrong_one_changes_nothing(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    assert door.post("new").status_code == 401
    door.write(ACME.replace("acme-secret", "renamed") + a_client("newest", a_key("newest", "new")))
    wait_until(lambda: door.post("new").status_code == 200)
    assert "globex-secret" not in keys_that_open(door)
    assert "clients_file" not in door.http.get("/readyz").json["not_ready"]

    canary = "canary-31337-that-must-never-show-anywhere"
    wrong = a_client("newest", a_key("newest", "newer"), secret=canary)
    door.write(wrong)
    wait_until(lambda: "clients_file" in door.http.get("/readyz").json["not_ready"])
    assert door.post("new").status_code == 200
    assert "newer" not in keys_that_open(door)
    (told,) = [record for record in caplog.records if "file of clients is wrong" in record.message]
    assert "line 5, clients.newest.livekit_api_secret: must be" in vars(told)["error"]
    assert canary not in caplog.text

    door.path.unlink()
    wait_until(lambda: "cannot be read" in door.http.application.extensions["usher"].clients.error)
    assert door.post("new").status_code == 200
    door.write(ACME)
    wait_until(lambda: "new" not in keys_that_open(door))
    assert "clients_file" not in door.http.get("/readyz").json["not_ready"]


def test_a_changed_secret_file_is_read_again(
    door_for: Callable[[str], Door], tmp_path: Path
) -> None:
    secret = tmp_path / "livekit-secret"
    secret.write_text("one" * 20)
    door = door_for(a_client("acme", a_key("acme", "a"), secret=f"file:{secret}"))
    secret.write_text("two" * 20)

    def signed_with_the_new_one() -> bool:
        try:
            jwt.decode(door.post("a").json["participant_token"], "two" * 20, algorithms=["HS256"])
        except jwt.InvalidSignatureError:
            return False
        return True

    wait_until(signed_with_the_new_one)


def test_a_disabled_client_is_told_so_and_what_it_has_begun_is_still_known(door: Door) -> None:
    answer = door.post("acme-secret").json
    door.write(a_client("acme", *ACME_KEYS, more="disabled = true") + GLOBEX)
    wait_until(lambda: door.post("acme-secret").status_code == 403)

    assert "disabled" in door.post("acme-secret").json["detail"]
    status = f"{URL}/{answer['dispatch_id']}"
    assert door.get(status, answer["participant_token"]).status_code == 403
    assert preflight(door, PAGE).status_code == 403
    clients = door.http.application.extensions["usher"].clients
    assert clients.by_id("acme").livekit.url == "wss://acme.example"


def test_looking_at_the_file_costs_nothing_between_two_looks(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients = door.http.application.extensions["usher"].clients
    assert clients.by_id("acme")
    started = time.thread_time()  # of the processor's, whatever else runs beside it
    for _ in range(10_000):
        assert len(clients.clients) == 2
    assert time.thread_time() - started < 0.5
    assert schema.MAX_LIVE_KEYS == 2
