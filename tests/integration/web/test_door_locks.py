"""What may one caller not do to others, with a valid key or token, or with none?"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import jwt
import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.support.clientsfile import LIVEKIT_SECRET, Open, a_client, a_key
from web.contract.request_schemas import MAX_ATTRIBUTES
from web.state.abuse_limits import LARGE_BYTES
from web.state.idempotency import MIN_PUBLIC_KEY_CHARS

URL = "/api/v1/dispatches"
PAGE = "https://app.acme.example"
KEYS = (a_key("acme", "secret"), a_key("acme", "page", kind="publishable"))
WITH_KEY = {"Authorization": "Bearer secret"}
UNGUESSABLE = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


@pytest.fixture
def opened(open_with: Open) -> Callable[..., FlaskClient]:
    """Opens the application with one client; keyword arguments are environment variables."""

    def open_(more: str = "", **environ: str) -> FlaskClient:
        return open_with(a_client("acme", *KEYS, more=f'origins = ["{PAGE}"]\n{more}'), **environ)

    return open_


def post(
    client: FlaskClient, key: str, json: object = None, *, data: bytes | None = None, once: str = ""
) -> TestResponse:
    headers = {"Authorization": f"Bearer {key}", "Origin": PAGE}
    if once:
        headers["Idempotency-Key"] = once
    if data is not None:
        return client.post(URL, data=data, headers=headers)
    return client.post(URL, json=json or {}, headers=headers)


def test_two_browsers_with_one_key_are_two_people_in_one_room(
    opened: Callable[..., FlaskClient],
) -> None:
    client = opened()

    first, second = (post(client, "page", once=UNGUESSABLE).json for _ in range(2))

    for name in ("dispatch_id", "room_name"):
        assert first[name] == second[name]
    assert first["participant_identity"] != second["participant_identity"]
    tokens = [
        jwt.decode(answer["participant_token"], LIVEKIT_SECRET, algorithms=["HS256"])
        for answer in (first, second)
    ]
    assert [claims["sub"] for claims in tokens] == [
        answer["participant_identity"] for answer in (first, second)
    ]


@pytest.mark.parametrize("key", ["page-load-1", "x" * (MIN_PUBLIC_KEY_CHARS - 1)])
def test_a_browsers_key_that_can_be_guessed_is_refused(
    key: str, opened: Callable[..., FlaskClient], raw: redis.Redis
) -> None:
    client = opened()

    refused = post(client, "page", once=key)

    assert refused.status_code == 422
    (error,) = refused.json["errors"]
    assert error["field"] == "Idempotency-Key"
    assert f"{MIN_PUBLIC_KEY_CHARS} to 255 printable ASCII" in error["message"]
    assert "crypto.randomUUID()" in error["message"]
    assert not list(raw.scan_iter("usher:dispatch:*"))
    assert post(client, "secret", once=key).status_code == 200


def test_a_browser_is_not_answered_what_a_backend_was(
    opened: Callable[..., FlaskClient],
) -> None:
    client = opened()

    backends = post(client, "secret", once=UNGUESSABLE).json
    browsers = post(client, "page", once=UNGUESSABLE).json
    again = post(client, "secret", once=UNGUESSABLE).json

    assert browsers["dispatch_id"] != backends["dispatch_id"]
    assert browsers["room_name"] != backends["room_name"]
    for name in ("dispatch_id", "room_name", "participant_identity"):
        assert again[name] == backends[name]


def too_many_attributes(value: str, nbytes: int = 880_000) -> bytes:
    """A body of that size, of attributes and nothing else."""
    each = f'"k%d": {value}'
    count = nbytes // (len(each % 10_000) + 2)
    return f'{{"participant_attributes": {{{", ".join(each % n for n in range(count))}}}}}'.encode()


@pytest.mark.parametrize("value", ["1", '""'], ids=["each wrong", "each right"])
def test_a_body_full_of_mistakes_gets_a_short_answer_soon(
    value: str, opened: Callable[..., FlaskClient]
) -> None:
    client = opened()
    body = too_many_attributes(value)
    assert 860_000 < len(body) < 1_000_000
    began = time.process_time()

    refused = post(client, "secret", data=body)

    assert refused.status_code == 422
    assert refused.json["errors"][0]["field"].startswith("participant_attributes")
    assert len(refused.get_data()) < 1000
    assert time.process_time() - began < 0.25  # it was 0.9 s, and 11 MB


def test_the_most_attributes_pass_and_one_more_does_not(
    opened: Callable[..., FlaskClient],
) -> None:
    client = opened()
    most = {f"k{n}": "v" for n in range(MAX_ATTRIBUTES)}

    assert post(client, "secret", {"participant_attributes": most}).status_code == 200
    refused = post(client, "secret", {"participant_attributes": most | {"more": "v"}})
    assert refused.status_code == 422
    assert str(MAX_ATTRIBUTES) in refused.json["errors"][0]["message"]


@pytest.mark.parametrize(
    ("key", "refused"),
    [
        ("secret", {"json": {"room_name": 1}}),
        ("secret", {"data": b"{"}),
        ("secret", {"json": {"room_config": {"agents": [{"agent_name": "another"}]}}}),
        ("secret", {"once": "x" * 256}),
        ("page", {"json": {"participant_identity": "ann"}}),
    ],
    ids=[
        "wrong field",
        "no JSON",
        "another's agent",
        "wrong header",
        "not the browser's to choose",
    ],
)
def test_requests_that_are_refused_count_like_others(
    key: str, refused: dict[str, object], opened: Callable[..., FlaskClient]
) -> None:
    client = opened("requests_per_minute = 3")

    statuses = [post(client, key, **refused).status_code for _ in range(5)]  # type: ignore[arg-type]

    assert all(status in (400, 403, 422) for status in statuses[:3]), statuses
    assert statuses[3:] == [429, 429]
    told_to_wait = post(client, key)
    assert told_to_wait.status_code == 429
    assert 0 < int(told_to_wait.headers["Retry-After"]) <= 20


def test_a_large_body_of_who_may_ask_no_more_is_not_looked_at(
    opened: Callable[..., FlaskClient],
) -> None:
    client = opened("requests_per_minute = 3")
    body = too_many_attributes('""')
    assert len(body) > LARGE_BYTES

    def took_s(status: int) -> float:
        began = time.process_time()
        assert post(client, "secret", data=body).status_code == status
        return time.process_time() - began

    parsed_s = min(took_s(422) for _ in range(3))
    assert min(took_s(429) for _ in range(3)) < parsed_s / 2  # a tenth


def test_a_publishable_key_does_not_spend_what_the_backend_may_ask_for(
    opened: Callable[..., FlaskClient],
) -> None:
    client = opened("requests_per_minute = 2")

    assert [post(client, "page").status_code for _ in range(3)] == [200, 200, 429]
    assert [post(client, "secret").status_code for _ in range(3)] == [200, 200, 429]


def test_a_quarter_of_the_sessions_is_the_backends_own(
    opened: Callable[..., FlaskClient],
) -> None:
    client = opened("max_sessions = 4")

    assert [post(client, "page").status_code for _ in range(3)] == [200] * 3
    refused = post(client, "page")
    assert refused.status_code == 429
    assert "3 sessions at once" in refused.json["detail"]
    assert [post(client, "secret").status_code for _ in range(2)] == [200, 429]


WRONG_SHAPES = ([], ["usher.dispatch_id"], "usher.dispatch_id", 1, {"usher.dispatch_id": ["x"]})


@pytest.mark.parametrize(
    "claims",
    [
        {name: shape}
        for name, shape in itertools.product(("attributes", "video", "sip", "sub"), WRONG_SHAPES)
    ],
    ids=str,
)
def test_a_signed_token_of_any_shape_is_no_fault_of_ours(
    claims: dict[str, object], opened: Callable[..., FlaskClient]
) -> None:
    client = opened()
    made = post(client, "secret").json
    payload = {
        "iss": "acme-livekit-key",
        "sub": "ann",
        "exp": time.time() + 60,
        "video": {"roomJoin": True, "room": made["room_name"]},
        "attributes": {},
        **claims,
    }
    token = jwt.encode(payload, LIVEKIT_SECRET, algorithm="HS256", sort_headers=True)

    answer = client.get(
        f"{URL}/{made['dispatch_id']}", headers={"Authorization": f"Bearer {token}"}
    )

    assert answer.status_code == 401


@pytest.mark.parametrize("host", ["evil.example", "usher.example.evil.example", "127.0.0.1:8080"])
def test_a_host_that_is_not_ours_is_in_no_answer(
    host: str, opened: Callable[..., FlaskClient], raw: redis.Redis
) -> None:
    client = opened(USHER_TRUSTED_HOSTS="usher.example, .internal.example")

    refused = client.post(URL, headers=WITH_KEY, base_url=f"http://{host}")

    assert (refused.status_code, refused.mimetype) == (400, "application/problem+json")
    assert host not in refused.text
    assert not list(raw.scan_iter("usher:dispatch:*"))
    # Probes and scrapes go to the address of a process.
    for path in ("/healthz", "/readyz"):
        assert client.get(path, base_url=f"http://{host}").status_code == 200


@pytest.mark.parametrize("host", ["usher.example", "usher.example:8443", "a.internal.example"])
def test_our_own_hosts_are_in_the_urls(host: str, opened: Callable[..., FlaskClient]) -> None:
    client = opened(USHER_TRUSTED_HOSTS="usher.example, .internal.example")

    answer = client.post(URL, headers=WITH_KEY, base_url=f"http://{host}").json

    assert answer["status_url"] == f"http://{host}{URL}/{answer['dispatch_id']}"
    assert answer["events_url"] == f"{answer['status_url']}/events"
