"""What does the front door answer without Redis, with delegation and without it?"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator

import jwt
import pytest
from flask.testing import FlaskClient

from dispatcher.clients.registry import registry
from dispatcher.settings import CommonSettings
from tests.support.ownredis import OwnRedis
from web import create_app

SECRET = "a-secret-of-at-least-32-characters"
METADATA = "a system prompt, and what the customer has told us"
WITH_METADATA = {
    "room_name": "room-with-16-characters",
    "room_config": {"agents": [{"metadata": METADATA}]},
}
PAGE = "https://app.example"
BROWSERS = {
    "USHER_PUBLISHABLE_KEY_SHA256": hashlib.sha256(b"page-key").hexdigest(),
    "USHER_ORIGINS": PAGE,
}
IN_A_PAGE = {"Authorization": "Bearer page-key", "Origin": PAGE}
Open = Callable[..., FlaskClient]


def agents_of(answer: dict[str, str]) -> list[dict[str, object]]:
    """The agents that LiveKit is to bring, as whoever holds the token can read them."""
    token = answer["participant_token"]
    claims = jwt.decode(token, SECRET, algorithms=["HS256"])
    found: list[dict[str, object]] = claims.get("roomConfig", {}).get("agents", [])
    return found


@pytest.fixture
def front_door(
    own_common: CommonSettings, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    """The application with Redis down."""
    opened = []

    def open_with(delegate: str, **more: str) -> FlaskClient:
        own_redis.stop()
        for name, value in {
            **more,
            "LIVEKIT_URL": "ws://127.0.0.1:1",
            "LIVEKIT_API_KEY": "key",
            "LIVEKIT_API_SECRET": SECRET,
            "USHER_API_KEY_SHA256": hashlib.sha256(b"key").hexdigest(),
            "USHER_AGENT_NAMES": "helper",
            "USHER_CONTAINER": "box-1",
            "USHER_DELEGATE": delegate,
        }.items():
            monkeypatch.setenv(name, value)
        registry.cache_clear()
        app = create_app()
        registry.cache_clear()
        opened.append(app)
        client = app.test_client()
        client.environ_base["HTTP_AUTHORIZATION"] = "Bearer key"
        return client

    yield open_with
    for app in opened:
        app.extensions["usher"].promises.close()


def test_a_client_that_delegates_gets_a_token_that_carries_its_agent(front_door: Open) -> None:
    client = front_door("true", USHER_DELEGATE_METADATA="true")
    body = {"room_name": "room-1", "room_config": {"agents": [{"metadata": "for the agent"}]}}

    response = client.post("/api/v1/dispatches", json=body)

    assert response.status_code == 200
    answer = response.json
    assert answer["status"] == "delegated"
    claims = jwt.decode(answer["participant_token"], SECRET, algorithms=["HS256"])
    (agent,) = claims["roomConfig"]["agents"]
    attributes = agent["attributes"]
    assert int(attributes.pop("usher.requested_at_ms")) > 1_700_000_000_000
    assert agent == {
        "agentName": "helper",
        "metadata": "for the agent",
        "attributes": {
            "usher.dispatch_id": answer["dispatch_id"],
            "usher.generation": "1",
            "usher.client_id": "default",
            "usher.container": "box-1",
            "usher.request_type": "delegated",
        },
    }
    again = client.post("/api/v1/dispatches", json=body).json
    assert again["dispatch_id"] == answer["dispatch_id"]
    ready = client.get("/readyz")
    assert (ready.status_code, ready.json["status"]) == (200, "degraded")


def test_a_client_that_does_not_delegate_gets_a_503_without_a_token(front_door: Open) -> None:
    client = front_door("false")

    response = client.post("/api/v1/dispatches", json={})

    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.mimetype == "application/problem+json"
    assert "participant_token" not in response.text
    assert "server_url" not in response.text
    assert client.get("/readyz").status_code == 503


def test_a_backends_agent_metadata_is_in_no_token_unless_the_client_wants_that(
    front_door: Open,
) -> None:
    client = front_door("true")

    refused = client.post("/api/v1/dispatches", json=WITH_METADATA)

    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert "delegates_metadata" in refused.json["detail"]
    assert METADATA not in refused.text
    assert "participant_token" not in refused.text
    # Nothing was promised: the same room without it is another request.
    without = client.post("/api/v1/dispatches", json={"room_name": WITH_METADATA["room_name"]})
    assert without.status_code == 200
    (agent,) = agents_of(without.json)
    assert "metadata" not in agent


def test_a_page_is_shown_the_metadata_that_it_has_sent_itself_and_no_others(
    front_door: Open,
) -> None:
    client = front_door("true", **BROWSERS)
    room = {"room_name": WITH_METADATA["room_name"]}

    own = client.post("/api/v1/dispatches", json=WITH_METADATA, headers=IN_A_PAGE).json
    others = client.post("/api/v1/dispatches", json=room, headers=IN_A_PAGE).json
    backends = client.post("/api/v1/dispatches", json=room).json

    assert [agent["metadata"] for agent in agents_of(own)] == [METADATA]
    for answer in (others, backends):
        assert answer["dispatch_id"] == own["dispatch_id"]
        assert agents_of(answer) == []  # the first one's token brings the agent


def test_without_redis_two_browsers_with_one_key_are_two_people(front_door: Open) -> None:
    client = front_door("true", **BROWSERS)
    headers = IN_A_PAGE | {"Idempotency-Key": "7c9e6679-7425-40de-944b-e07fc1f90ae7"}

    first, second = (
        client.post("/api/v1/dispatches", json={}, headers=headers).json for _ in range(2)
    )
    backends = client.post(
        "/api/v1/dispatches", json={}, headers={"Idempotency-Key": headers["Idempotency-Key"]}
    ).json

    assert first["dispatch_id"] == second["dispatch_id"] != backends["dispatch_id"]
    assert first["participant_identity"] != second["participant_identity"]


def test_the_same_request_with_its_key_gets_the_same_from_this_process(front_door: Open) -> None:
    client = front_door("true")
    headers = {"Idempotency-Key": "k1"}
    body = {"participant_name": "Ann"}

    first = client.post("/api/v1/dispatches", json=body, headers=headers).json
    again = client.post("/api/v1/dispatches", json=body, headers=headers).json
    other = client.post("/api/v1/dispatches", json={}, headers=headers)
    without = client.post("/api/v1/dispatches", json=body).json

    for name in ("dispatch_id", "room_name", "participant_identity"):
        assert again[name] == first[name] != without[name]
    assert again["status"] == "delegated"
    assert other.status_code == 409


def test_the_same_request_with_its_key_gets_the_same_when_redis_is_back(
    front_door: Open, own_redis: OwnRedis
) -> None:
    client = front_door("true")
    headers = {"Idempotency-Key": "k1"}
    first = client.post("/api/v1/dispatches", json={}, headers=headers).json
    own_redis.start()
    client.application.extensions["usher"].promises.look()

    answers = [client.post("/api/v1/dispatches", json={}, headers=headers).json for _ in range(2)]

    for again in answers:
        for name in ("dispatch_id", "room_name", "participant_identity"):
            assert again[name] == first[name]


def test_what_was_delegated_can_be_cancelled_as_soon_as_redis_is_back(
    front_door: Open, own_redis: OwnRedis
) -> None:
    client = front_door("true")
    promises = client.application.extensions["usher"].promises
    promises.close()  # so that nobody but the request itself writes the record
    made = client.post("/api/v1/dispatches", json={}).json
    url = f"/api/v1/dispatches/{made['dispatch_id']}"
    assert client.delete(url).status_code == 503

    own_redis.start()
    cancelled = client.delete(url)

    assert (cancelled.status_code, cancelled.json["state"]) == (200, "cancelled")
    assert client.get(url).json["state"] == "cancelled"
    own_redis.stop()
    own_redis.start()  # empty
    promises.look()
    assert client.get(url).status_code == 404


def test_an_id_that_nobody_has_promised_is_still_not_found(
    front_door: Open, own_redis: OwnRedis
) -> None:
    client = front_door("true")
    own_redis.start()

    assert client.get("/api/v1/dispatches/dsp_nobodys").status_code == 404
