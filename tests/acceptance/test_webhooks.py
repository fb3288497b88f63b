"""Do LiveKit's webhooks come in, and do a customer's go out, whoever dies in between?"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from tests.conftest import PATIENT
from tests.faults.stacks import kill
from tests.support.receiver import SECRET, Receiver, receiving
from tests.support.stacks import RunningStack, running_stack

from .session import Caller, end_rooms, wait_for

# Until a delivery whose worker died is due again (10 s), its worker is up and a sweep has come by.
AGAIN_WITHIN_S = 60


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    """The customer's own server, in a thread of its own."""
    opened = Receiver()
    ready, over = threading.Event(), threading.Event()

    async def serve() -> None:
        async with receiving(opened):
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(10)
    yield opened
    over.set()
    thread.join()


@pytest.fixture(scope="module")
def telling(receiver: Receiver, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack whose client wants events at the receiver."""
    environ = {
        **PATIENT,
        "USHER_WEBHOOK_URL": receiver.url,
        "USHER_WEBHOOK_SECRET": SECRET,
        "USHER_WEBHOOK_ALLOW_PRIVATE": "true",
        "USHER_WEBHOOK_WAITS_S": "0.5,1,1",
        "USHER_AGENT_EXECUTOR": "thread",
    }
    with running_stack(tmp_path_factory.mktemp("stack"), environ=environ) as running:
        yield running


@pytest.fixture
def caller(telling: RunningStack) -> Iterator[Caller]:
    opened = Caller(telling)
    with opened.http:
        yield opened


def told(receiver: Receiver, dispatch_id: str, event: str, *, within_s: float) -> dict[str, Any]:
    """The verified event of that type about that dispatch."""

    def look() -> dict[str, Any] | None:
        for each in receiver.events():
            if (each["data"]["dispatch_id"], each["type"]) == (dispatch_id, event):
                return each
        return None

    return wait_for(f"{event} of {dispatch_id}", look, within_s=within_s)


def test_a_session_is_told_from_joined_to_ended(
    telling: RunningStack, caller: Caller, receiver: Receiver
) -> None:
    answer = caller.post()
    joined = told(receiver, answer["dispatch_id"], "dispatch.joined", within_s=30)
    assert joined["data"]["room_name"] == answer["room_name"]
    end_rooms(telling, answer["room_name"])

    told(receiver, answer["dispatch_id"], "dispatch.ended", within_s=30)

    assert caller.record(answer["dispatch_id"])["state"] == "ended"
    # And LiveKit's own webhooks have come in meanwhile, signed and fresh.
    with redis.Redis.from_url(telling.redis_url) as client:
        wait_for(
            "LiveKit's webhooks",
            lambda: list(client.scan_iter("usher:webhook_seen:*")) or None,
            within_s=30,
        )
    assert SECRET not in "".join(telling.log(name) for name in ("web", "dispatch", "verify"))


def test_a_delivery_whose_worker_is_killed_is_made_again_with_the_same_id(
    telling: RunningStack, caller: Caller, receiver: Receiver
) -> None:
    receiver.hangs = True
    before = len(receiver.got)
    answer = caller.post()
    wait_for("a delivery", lambda: len(receiver.got) > before or None, within_s=30)
    (event_id,) = receiver.ids[before:]

    kill(*telling.pids("verify"))
    receiver.hangs = False

    wait_for("it again", lambda: len(receiver.got) > before + 1 or None, within_s=AGAIN_WITHIN_S)
    assert receiver.ids[before + 1] == event_id
    end_rooms(telling, answer["room_name"])
