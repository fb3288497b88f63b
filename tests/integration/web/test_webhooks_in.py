"""Is a webhook of LiveKit's taken as a hint, and everything else that looks like one refused?"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import time
from collections.abc import Iterator
from typing import Any

import jwt
import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dispatcher.clients.registry import registry
from dispatcher.domain import state_machine
from dispatcher.domain.models import Dispatch, State
from dispatcher.ledger import dispatches
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.client import Ledger
from dispatcher.lifecycle import dispatching, sweeping, verification
from dispatcher.lifecycle.services import Services
from dispatcher.settings import CommonSettings
from tests.support.house import OpenServices, Request
from tests.support.scenario import Scenario
from tests.support.values import AGENT_NAME, WAIT_S, eventually, keyspace
from web import create_app

URL = "/api/v1/webhooks/livekit"
KEY, SECRET = "livekit-key", "a-secret-of-at-least-32-characters"


@pytest.fixture
def door(common: CommonSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[FlaskClient]:
    """The web application of the client `acme`."""
    for name, value in {
        "LIVEKIT_URL": "ws://127.0.0.1:1",
        "LIVEKIT_API_KEY": KEY,
        "LIVEKIT_API_SECRET": SECRET,
        "USHER_CLIENT_ID": "acme",
        "USHER_API_KEY_SHA256": hashlib.sha256(b"key").hexdigest(),
        "USHER_AGENT_NAMES": f"another,{AGENT_NAME}",
    }.items():
        monkeypatch.setenv(name, value)
    registry.cache_clear()
    app = create_app()
    registry.cache_clear()
    yield app.test_client()
    app.extensions["usher"].promises.close()


def an_event(event: str = "participant_left", **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "event": event,
        "id": f"EV_{secrets.token_hex(6)}",
        "createdAt": str(int(time.time())),
        "room": {"name": "room-1", "sid": "RM_1"},
        "participant": {"identity": "agent-1", "kind": "AGENT"},
        "aFieldOfTomorrow": 1,
    }
    return values | changes


def token_for(body: bytes, *, key: str = KEY, secret: str = SECRET, **claims: Any) -> str:
    """As LiveKit signs: its key as the issuer, and the body's hash."""
    signed = base64.b64encode(hashlib.sha256(body).digest()).decode()
    values = {"iss": key, "exp": int(time.time()) + 300, "sha256": signed, **claims}
    return jwt.encode({name: v for name, v in values.items() if v is not None}, secret, "HS256")


def send(door: FlaskClient, event: dict[str, Any], token: str | None = None) -> TestResponse:
    body = json.dumps(event).encode()
    headers = {"Authorization": token or token_for(body)}
    return door.post(URL, data=body, headers=headers, content_type="application/webhook+json")


def join(store: Ledger, dispatch: Dispatch) -> None:
    store.run(dispatches.advance(Advance(dispatch, state_machine.DISPATCH_STARTED)))
    store.run(dispatches.advance(Advance(dispatch, state_machine.JOINED, times=Times(lease_s=60))))


@pytest.mark.parametrize(
    "event", ["participant_left", "participant_connection_aborted", "room_finished"]
)
def test_a_leaving_has_the_dispatch_of_that_room_looked_after_now_and_changes_nothing(
    event: str, door: FlaskClient, scenario: Scenario
) -> None:
    join(scenario.store, scenario.request_dispatch(room_name="room-1"))
    join(scenario.store, scenario.request_dispatch("dsp_2", room_name="room-2"))
    before = keyspace(scenario.raw)

    assert send(door, an_event(event)).status_code == 204

    after = keyspace(scenario.raw)
    assert after.pop("usher:leases")["dsp_1"] <= int(time.time() * 1000) + 5
    leases = before.pop("usher:leases")
    assert scenario.raw.zscore("usher:leases", "dsp_2") == leases["dsp_2"]
    assert after["usher:dispatch:dsp_1"].pop("look_at_ms")
    assert [key for key in after if key not in before] == [
        key for key in after if key.startswith("usher:webhook_seen:acme:EV_")
    ]
    assert {key: after[key] for key in before} == before


async def test_what_is_looked_after_sooner_is_found_by_the_sweep_and_its_lease_decides(
    services: Services, door: FlaskClient, scenario: Scenario
) -> None:
    join(scenario.store, scenario.request_dispatch(room_name="room-1"))
    scenario.raw.set("usher:leases:looked_at", int(time.time() * 1000))
    assert await sweeping.sweep(services) == []

    send(door, an_event())

    (wake_up,) = await sweeping.sweep(services)
    assert wake_up.state is State.JOINED


@pytest.mark.parametrize(
    ("attributes", "room"),
    [({"usher.dispatch_id": "dsp_1"}, "elsewhere"), ({}, "room-1")],
    ids=["by-attribute", "by-room"],
)
def test_an_agents_joining_wakes_whoever_waits_for_it(
    attributes: dict[str, str], room: str, door: FlaskClient, scenario: Scenario
) -> None:
    scenario.run(
        dispatches.advance(
            Advance(
                scenario.request_dispatch(room_name="room-1"),
                state_machine.DISPATCH_STARTED,
                due_in_s=9,
            )
        )
    )
    with scenario.raw.pubsub(ignore_subscribe_messages=True) as news:
        news.subscribe("usher:wake:dsp_1")
        news.get_message(timeout=WAIT_S)
        participant = {"identity": "a", "kind": "AGENT", "attributes": attributes}

        event = an_event("participant_joined", room={"name": room}, participant=participant)
        assert send(door, event).status_code == 204

        message = news.get_message(timeout=WAIT_S)
    assert message is not None
    assert message["data"] == "webhook:participant_joined"


@pytest.mark.parametrize(
    "event",
    [
        an_event("participant_joined", participant={"identity": "person", "kind": "STANDARD"}),
        an_event("track_published"),
        an_event(room={"name": "nobody's room"}),
        an_event(
            "participant_joined",
            room={"name": "x"},
            participant={"kind": "AGENT", "attributes": {"usher.dispatch_id": "dsp_other"}},
        ),
        an_event(
            "participant_joined",
            room={"name": "x"},
            participant={"kind": "AGENT", "attributes": {"usher.dispatch_id": "dsp_1:timeline"}},
        ),
    ],
    ids=["a-person", "another-event", "another-room", "another-client", "no-dispatch-id"],
)
def test_what_concerns_none_of_our_dispatches_says_nothing_to_anybody(
    event: dict[str, Any], door: FlaskClient, scenario: Scenario
) -> None:
    join(scenario.store, scenario.request_dispatch(room_name="room-1"))
    other = scenario.request_dispatch("dsp_other", client_id="other", room_name="room-9")
    scenario.run(dispatches.advance(Advance(other, state_machine.DISPATCH_STARTED, due_in_s=9)))
    before = keyspace(scenario.raw)
    with scenario.raw.pubsub(ignore_subscribe_messages=True) as news:
        news.psubscribe("usher:*")
        news.get_message(timeout=WAIT_S)

        event = event | {"id": secrets.token_hex(8), "createdAt": str(int(time.time()))}
        assert send(door, event).status_code == 204

        assert news.get_message(timeout=0.2) is None
    after = keyspace(scenario.raw)
    assert {key: after[key] for key in before} == before


@pytest.mark.parametrize("name", ["room_started", "track_published", "participant_joined"])
def test_what_is_no_news_leaves_nothing_in_redis(
    name: str, door: FlaskClient, request_dispatch: Request, raw: redis.Redis
) -> None:
    request_dispatch(room_name="room-1")
    before = keyspace(raw)
    event = an_event(name, participant={"identity": "person", "kind": "STANDARD"})

    assert [send(door, event).status_code for _ in range(2)] == [204, 204]

    assert keyspace(raw) == before


def test_a_replayed_event_is_refused_and_has_no_second_effect(
    door: FlaskClient, scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch(room_name="room-1")
    join(scenario.store, dispatch)
    event = an_event()
    assert send(door, event).status_code == 204
    assert scenario.raw.zscore("usher:leases", "dsp_1") <= time.time() * 1000 + 5
    # The agent says that it is alive: somebody has looked, and all is well.
    scenario.raw.zadd("usher:leases", {"dsp_1": (time.time() + 60) * 1000})
    before = keyspace(scenario.raw)

    refused = send(door, event)

    assert (refused.status_code, refused.mimetype) == (409, "application/problem+json")
    assert keyspace(scenario.raw) == before
    (seen,) = scenario.raw.scan_iter("usher:webhook_seen:*")
    assert 300 < scenario.raw.ttl(seen) <= 660


@pytest.mark.parametrize(("age_s", "status"), [(310, 400), (290, 204), (-70, 400), (-50, 204)])
def test_an_event_from_another_time_is_refused(
    age_s: int, status: int, door: FlaskClient, raw: redis.Redis
) -> None:
    assert send(door, an_event(createdAt=str(int(time.time()) - age_s))).status_code == status


@pytest.mark.parametrize(
    "spoil",
    [
        {"secret": "another-secret-of-at-least-32-characters"},
        {"key": "key-of-nobody"},
        {"sha256": None},
        {"sha256": base64.b64encode(hashlib.sha256(b"another body").digest()).decode()},
        {"sha256": "no base64!"},
        {"sha256": 7},
        {"exp": 1_700_000_000},
        {"exp": None},
    ],
    ids=lambda spoil: f"{next(iter(spoil))}-{next(iter(spoil.values()))}"[:20],
)
def test_what_is_not_signed_by_the_clients_livekit_is_refused_without_a_trace(
    spoil: dict[str, Any], door: FlaskClient, raw: redis.Redis
) -> None:
    event = an_event()

    refused = send(door, event, token_for(json.dumps(event).encode(), **spoil))

    assert (refused.status_code, refused.mimetype) == (401, "application/problem+json")
    assert SECRET not in refused.text
    assert not list(raw.scan_iter("usher:webhook_seen:*"))


@pytest.mark.parametrize("token", ["", "no token", "a.b.c", "Bearer ", "Bearer a.b.c"])
def test_no_token_is_refused(token: str, door: FlaskClient) -> None:
    assert door.post(URL, data=b"{}", headers={"Authorization": token}).status_code == 401


def test_a_token_that_claims_to_need_no_signature_is_refused(door: FlaskClient) -> None:
    body = json.dumps(an_event()).encode()
    signed = base64.b64encode(hashlib.sha256(body).digest()).decode()
    claims = {"iss": KEY, "exp": int(time.time()) + 300, "sha256": signed}
    token = jwt.encode(claims, key=None, algorithm="none")

    assert door.post(URL, data=body, headers={"Authorization": token}).status_code == 401


def test_an_altered_body_is_refused(door: FlaskClient) -> None:
    event = an_event()
    token = token_for(json.dumps(event).encode())

    assert send(door, event | {"event": "room_finished"}, token).status_code == 401


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"[]", 400),
        (b"\xff\xfe", 400),
        (b'{"id": 7}', 400),
        (b"{" * 10_000, 400),
        (b'{"a":' * 50_000, 400),
        (json.dumps({"id": "x" * 200, "createdAt": str(int(time.time()))}).encode(), 400),
        (b" " * 900_000, 413),
    ],
    ids=["empty", "list", "no-text", "wrong-type", "braces", "deep", "long-id", "large"],
)
def test_a_body_that_is_no_event_is_refused(body: bytes, status: int, door: FlaskClient) -> None:
    answer = door.post(URL, data=body, headers={"Authorization": token_for(body)})

    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")


async def test_a_verification_that_waits_looks_as_soon_as_livekit_says_that_an_agent_is_there(
    services_for: OpenServices, door: FlaskClient, scenario: Scenario
) -> None:
    services = await services_for(
        USHER_UNFENCED_AGENTS=AGENT_NAME, USHER_VERIFY_TIMEOUT_S="50", USHER_VERIFY_POLL_S="40"
    )
    scenario.request_dispatch(deadline_ms=60_000)
    await dispatching.dispatch_agent(services, "dsp_1")
    waiting = asyncio.create_task(verification.verify_dispatch(services, "dsp_1"))
    await scenario.house.join("agent-1", attributes={"lk.agent_name": AGENT_NAME})
    assert scenario.look().state is State.DISPATCHED  # nobody has told

    event = an_event("participant_joined", room={"name": scenario.house.room})
    await asyncio.to_thread(send, door, event)

    await eventually(lambda: scenario.look().state is State.JOINED, within_s=15)
    assert await waiting is State.JOINED
