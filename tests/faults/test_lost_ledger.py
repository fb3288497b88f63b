"""Redis is killed without an append-only file and comes back empty: who still knows what?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis
from livekit import rtc

from tests.acceptance.session import Caller, active_agents, wait_for
from tests.acceptance.test_recovery import job_processes
from tests.support.stacks import RunningStack, running_stack

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack whose Redis keeps nothing."""
    environ = {"USHER_REDIS_APPENDFSYNC": "off"}
    with running_stack(tmp_path_factory.mktemp("lost"), environ=environ) as running:
        yield running


@pytest.fixture(scope="module")
def caller(stack: RunningStack) -> Iterator[Caller]:
    caller = Caller(stack)
    with caller.http:
        yield caller


@contextlib.asynccontextmanager
async def people(answers: list[dict[str, Any]]) -> AsyncIterator[None]:
    """A person in each of the rooms."""
    rooms = [rtc.Room() for _ in answers]
    for room, answer in zip(rooms, answers, strict=True):
        await room.connect(answer["server_url"], answer["participant_token"])
    try:
        yield
    finally:
        for room in rooms:
            await room.disconnect()


def kill_redis(stack: RunningStack) -> None:
    """SIGKILL, and wait until the supervisor has started another, empty one."""
    before = stack.pids("redis")[0]
    os.kill(before, signal.SIGKILL)

    def back() -> bool | None:
        with contextlib.suppress(redis.RedisError, IndexError):
            if stack.pids("redis")[0] != before:
                with redis.Redis.from_url(stack.redis_url, socket_timeout=1) as client:
                    return bool(client.ping())
        return None

    wait_for("Redis again", back, within_s=15)


def record_when_joined(caller: Caller, dispatch_id: str, generation: int = 1) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        response = caller.http.get(f"/api/v1/dispatches/{dispatch_id}")
        found: dict[str, Any] = response.json()
        done = response.status_code == 200 and found["state"] == "joined"
        return found if done and found["generation"] >= generation else None

    return wait_for(f"{dispatch_id} joined", look, within_s=25)


async def test_an_empty_redis_costs_no_session_and_is_not_kept_silent(
    stack: RunningStack, caller: Caller
) -> None:
    running = [await asyncio.to_thread(caller.post) for _ in range(3)]
    async with people(running):
        for answer in running:
            await asyncio.to_thread(record_when_joined, caller, answer["dispatch_id"])
        # Redis goes with two more on their way: accepted, and not looked at by anybody.
        assert "stopped" in await asyncio.to_thread(stack.supervisorctl, "stop", "usher:dispatch")
        on_their_way = [await asyncio.to_thread(caller.post) for _ in range(2)]
        await asyncio.to_thread(kill_redis, stack)
        await asyncio.to_thread(stack.supervisorctl, "start", "usher:dispatch")

        rooms = []
        for answer in running + on_their_way:
            record = await asyncio.to_thread(record_when_joined, caller, answer["dispatch_id"])
            assert "restored" in {event["event"] for event in record["timeline"]}
            rooms.append(answer["room_name"])
        for _ in range(20):
            found = await asyncio.to_thread(active_agents, stack, *rooms)
            assert {room: len(agents) for room, agents in found.items()} == dict.fromkeys(rooms, 1)

        # What was written again is looked after as before.
        for job in await asyncio.to_thread(job_processes, stack):
            job.kill()
        for answer in running:
            await asyncio.to_thread(record_when_joined, caller, answer["dispatch_id"], 2)
    assert "they are written again" in stack.log("web")


def test_the_loss_is_told_as_an_error_and_counted(stack: RunningStack, caller: Caller) -> None:
    answer = caller.post()
    record_when_joined(caller, answer["dispatch_id"])

    kill_redis(stack)

    wait_for(
        "the error in the log",
        lambda: "Redis has lost its data" in stack.log("dispatch") or None,
        within_s=10,
    )
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as client:
        assert client.hget("usher:metrics:ledger", "data_losses") == "1"
    record_when_joined(caller, answer["dispatch_id"])
