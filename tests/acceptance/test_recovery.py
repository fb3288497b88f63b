"""Does a session keep exactly one agent, whatever dies while it runs?"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator
from urllib.parse import urlsplit

import psutil
import pytest
from livekit import rtc

from devstack.testing import RunningStack, running_stack

from .session import Caller, active_agents, end_rooms, wait_for
from .test_outages import stopped, wait_ready

pytestmark = pytest.mark.timeout(180)

ABANDON_AFTER_S = 6


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack of this module's own: its parts are killed here."""
    environ = {"USHER_ABANDON_AFTER_S": str(ABANDON_AFTER_S)}
    with running_stack(tmp_path_factory.mktemp("recovery"), environ=environ) as running:
        yield running


@pytest.fixture(scope="module")
def caller(stack: RunningStack) -> Iterator[Caller]:
    caller = Caller(stack)
    with caller.http:
        yield caller


@pytest.fixture(autouse=True)
def _all_ready(caller: Caller) -> Iterator[None]:
    yield
    wait_ready(caller)


@contextlib.asynccontextmanager
async def person(answer: dict[str, str]) -> AsyncIterator[rtc.Room]:
    """Somebody who has joined the room with the token of `answer`."""
    room = rtc.Room()
    await room.connect(answer["server_url"], answer["participant_token"])
    try:
        yield room
    finally:
        await room.disconnect()


async def in_thread(look: Callable[[], object]) -> object:
    """Look without holding up the person's event loop."""
    return await asyncio.to_thread(look)


def job_processes(stack: RunningStack) -> list[psutil.Process]:
    """The processes that run a job: of the agent server's, those that are connected to LiveKit."""
    port = urlsplit(stack.livekit_url).port
    server = psutil.Process(stack.pids("agent")[0])
    return [
        process
        for process in server.children(recursive=True)
        if any(c.raddr and c.raddr.port == port for c in process.net_connections("tcp"))
    ]


async def joined_again(caller: Caller, dispatch_id: str, generation: int) -> dict[str, object]:
    def look() -> dict[str, object] | None:
        record = caller.record(dispatch_id)
        done = record["state"] == "joined" and record["generation"] >= generation
        return record if done else None

    return await asyncio.to_thread(wait_for, "a replacement", look, within_s=25)


def one_agent(stack: RunningStack, room: str, *, for_s: float) -> None:
    """Exactly one ACTIVE agent, for so long."""
    until = time.monotonic() + for_s
    while time.monotonic() < until:
        found = active_agents(stack, room)[room]
        assert len(found) == 1, found
        time.sleep(0.1)


async def test_an_agent_whose_process_is_killed_is_replaced_within_five_seconds(
    stack: RunningStack, caller: Caller
) -> None:
    answer = await asyncio.to_thread(caller.post)
    async with person(answer):
        await joined_again(caller, answer["dispatch_id"], 1)
        await asyncio.sleep(1.5)  # one renewal that has seen the person
        killed = time.monotonic()
        for job in job_processes(stack):
            job.kill()
        record = await joined_again(caller, answer["dispatch_id"], 2)
        assert time.monotonic() - killed < 5
        assert record["generation"] == 2
        await asyncio.to_thread(one_agent, stack, answer["room_name"], for_s=2)
    await asyncio.to_thread(end_rooms, stack, answer["room_name"])


async def test_an_agent_that_was_frozen_past_its_lease_leaves_when_it_goes_on(
    stack: RunningStack, caller: Caller
) -> None:
    answer = await asyncio.to_thread(caller.post)
    async with person(answer):
        record = await joined_again(caller, answer["dispatch_id"], 1)
        await asyncio.sleep(1.5)
        frozen = job_processes(stack)
        assert len(frozen) == 1
        for job in frozen:
            os.kill(job.pid, signal.SIGSTOP)
        try:
            second = await joined_again(caller, answer["dispatch_id"], 2)
        finally:
            for job in frozen:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(job.pid, signal.SIGCONT)
        assert second["agent_identity"] != record["agent_identity"]
        await asyncio.to_thread(one_agent, stack, answer["room_name"], for_s=4)
        assert caller.record(answer["dispatch_id"])["generation"] == second["generation"]
    await asyncio.to_thread(end_rooms, stack, answer["room_name"])


async def test_after_an_agent_server_was_killed_its_sessions_get_a_new_agent(
    stack: RunningStack, caller: Caller
) -> None:
    answer = await asyncio.to_thread(caller.post)
    async with person(answer):
        await joined_again(caller, answer["dispatch_id"], 1)
        await asyncio.sleep(1.5)
        for pid in reversed(stack.pids("agent")):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await joined_again(caller, answer["dispatch_id"], 2)
        await asyncio.to_thread(one_agent, stack, answer["room_name"], for_s=2)
    await asyncio.to_thread(end_rooms, stack, answer["room_name"])


def test_a_session_waits_for_an_agent_server_and_gets_its_agent_within_two_seconds_of_it(
    stack: RunningStack, caller: Caller
) -> None:
    with stopped(stack, "agent"):
        answer = caller.post()
        record = caller.wait_for_state(answer["dispatch_id"], "waiting", within_s=9)
        assert record["failure_reason"] == "no_agent_online"
        registered_before = stack.log("agent").count("registered worker")
    wait_for(
        "the agent server's registering",
        lambda: stack.log("agent").count("registered worker") > registered_before or None,
        within_s=15,
    )
    registered = time.monotonic()
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=10)
    assert time.monotonic() - registered < 2
    end_rooms(stack, answer["room_name"])


def test_an_agent_that_nobody_comes_to_leaves_and_the_dispatch_is_cancelled(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post()
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=10)
    record = caller.wait_for_state(answer["dispatch_id"], "cancelled", within_s=ABANDON_AFTER_S + 5)
    assert record["failure_reason"] == "nobody_came"
    wait_for(
        "the agent's leaving",
        lambda: (
            True if active_agents(stack, answer["room_name"])[answer["room_name"]] == [] else None
        ),
        within_s=10,
    )


async def test_a_person_who_comes_in_the_last_moment_finds_an_agent_that_stays(
    stack: RunningStack, caller: Caller
) -> None:
    """LiveKit tells an agent of one who publishes nothing up to 3 s late: here, at 9 s."""
    answer = await asyncio.to_thread(caller.post)
    record = await joined_again(caller, answer["dispatch_id"], 1)
    joined_at_ms = int(str(record["joined_at_ms"]))
    await asyncio.sleep(joined_at_ms / 1000 + ABANDON_AFTER_S - 0.3 - time.time())
    async with person(answer) as room:
        await asyncio.sleep(3)
        assert caller.record(answer["dispatch_id"])["state"] == "joined"
        assert len(room.remote_participants) == 1
    await asyncio.to_thread(end_rooms, stack, answer["room_name"])


async def test_when_the_last_person_leaves_nothing_is_dispatched_again(
    stack: RunningStack, caller: Caller
) -> None:
    answer = await asyncio.to_thread(caller.post)
    async with person(answer):
        await joined_again(caller, answer["dispatch_id"], 1)
        await asyncio.sleep(1.5)
    await asyncio.to_thread(caller.wait_for_state, answer["dispatch_id"], "ended", within_s=40)
    record = caller.record(answer["dispatch_id"])
    assert record["generation"] == 1


def test_without_beat_a_worker_sweeps_and_says_so(stack: RunningStack, caller: Caller) -> None:
    with stopped(stack, "beat"):
        wait_for(
            "readiness naming the sweeper",
            lambda: caller.http.get("/readyz").json()["not_ready"] == ["sweeper"] or None,
            within_s=15,
        )
        with stopped(stack, "agent"):
            answer = caller.post()
            caller.wait_for_state(answer["dispatch_id"], "waiting", within_s=9)
        caller.wait_for_state(answer["dispatch_id"], "joined", within_s=20)
    assert "beat is silent" in stack.log("dispatch")
    end_rooms(stack, answer["room_name"])


async def test_after_livekit_was_killed_every_session_has_one_agent(
    stack: RunningStack, caller: Caller
) -> None:
    answer = await asyncio.to_thread(caller.post)
    async with person(answer):
        await joined_again(caller, answer["dispatch_id"], 1)
        await asyncio.sleep(1.5)
        os.kill(stack.pids("livekit")[0], signal.SIGKILL)

        def one() -> bool | None:
            with contextlib.suppress(Exception):  # LiveKit is not back yet
                return (
                    len(active_agents(stack, answer["room_name"])[answer["room_name"]]) == 1 or None
                )
            return None

        await asyncio.to_thread(wait_for, "one agent", one, within_s=45)
        await asyncio.to_thread(one_agent, stack, answer["room_name"], for_s=12)
    await asyncio.to_thread(end_rooms, stack, answer["room_name"])
