"""An answering agent is there for as long as a person is, whatever agent programs and people do.

Two agent servers of one agent, one that runs jobs in processes and one in threads; nothing is
killed but where a test says so. What counts is service: a person writes a word and wants it back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import psutil
import pytest
from livekit import api, rtc

from devstack import PROJECT_ROOT
from devstack.supervision import read_procfile
from dispatcher.domain.metrics import ClientFigures, Window
from dispatcher.ledger.leases import LEASE_S
from dispatcher.ledger.statistics import figures
from tests.support.stacks import RunningStack, running_stack
from worker_agent.departure import _TELL_FOR_S

from .ordinary import CONFIDENTIAL
from .session import Caller, active_agents, end_rooms, run_step, wait_ready

pytestmark = [pytest.mark.timeout(120), pytest.mark.ordinary]

AGENT = "session-agent-rag"
DRAIN_S = 3
ABANDON_AFTER_S = 5
# What is promised is 3 s; a machine that runs tests takes a second or two longer to start an agent.
ANSWERS_WITHIN_S = 3.0 + 2.0
REPLACED_WITHIN_S = 5.0
OUT_WITHIN_S = 2.0 + 0.5
WORD_EVERY_S = 0.25


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    folder = tmp_path_factory.mktemp("ordinary")
    lines = dict(read_procfile(PROJECT_ROOT / "Procfile"))
    del lines["flower"]
    agent = "nice -n 10 python -m worker_agent"
    lines["agent"] = f"exec env USHER_AGENT_EXECUTOR=process USHER_AGENT_IDLE_PROCESSES=2 {agent}"
    lines["agent2"] = f"exec env USHER_AGENT_EXECUTOR=thread USHER_AGENT_PORT=0 {agent}"
    procfile = folder / "Procfile"
    procfile.write_text("".join(f"{name}: {command}\n" for name, command in lines.items()))
    environ = {
        "USHER_AGENT_ENTRYPOINT": "tests.acceptance.ordinary:entrypoint",
        "USHER_AGENT_DRAIN_S": str(DRAIN_S),
        "USHER_ABANDON_AFTER_S": str(ABANDON_AFTER_S),
    }
    with running_stack(folder / "run", environ=environ, procfile=procfile) as running:
        yield running


@pytest.fixture(scope="module")
def caller(stack: RunningStack) -> Iterator[Caller]:
    caller = Caller(stack)
    with caller.http:
        wait_ready(caller)
        yield caller


class Person:
    """One person in a room, who writes a word now and then and notes which agent gives it back."""

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self.answers: list[tuple[float, str]] = []  # (time.monotonic(), identity of the agent)
        self._tasks: set[asyncio.Task[None]] = set()
        room.register_text_stream_handler("echo", self._on_text)

    def _on_text(self, reader: rtc.TextStreamReader, identity: str) -> None:
        async def read() -> None:
            await reader.read_all()
            self.answers.append((time.monotonic(), identity))

        self._spawn(read())

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def begin(self) -> None:
        self._spawn(self._speak())

    async def _speak(self) -> None:
        while True:
            with contextlib.suppress(Exception):  # the room may be about to close
                await self._room.local_participant.send_text(uuid.uuid4().hex, topic="lk.chat")
            await asyncio.sleep(WORD_EVERY_S)

    async def leave(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await self._room.disconnect()

    async def answered(self, *, within_s: float, by_another_than: str = "") -> str:
        """The identity of the agent that answers from now on; fails when none does in time."""
        since = time.monotonic()
        while time.monotonic() < since + within_s:
            for at, identity in self.answers:
                if at > since and identity != by_another_than:
                    return identity
            await asyncio.sleep(0.02)
        raise AssertionError(f"no answer within {within_s} s; before: {self.answers[-3:]}")


async def joins(answer: dict[str, Any], *, microphone: bool = False) -> Person:
    """A person in the room of `answer`.

    LiveKit tells an agent at once when a person with a microphone leaves, and up to 3 s late of one
    who publishes nothing (livekit-server 1.13.5, `subscriberUpdateInterval`).
    """
    room = rtc.Room()
    person = Person(room)
    await room.connect(answer["server_url"], answer["participant_token"])
    if microphone:
        track = rtc.LocalAudioTrack.create_audio_track("voice", rtc.AudioSource(48_000, 1))
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await room.local_participant.publish_track(track, options)
    person.begin()
    return person


@contextlib.asynccontextmanager
async def a_session(
    caller: Caller, *, microphone: bool = False, **life: object
) -> AsyncIterator[tuple[dict[str, Any], Person, str]]:
    """A person who is being answered by an agent of that life: answer, person, agent's identity."""
    answer = await ask(caller, f"ordinary-{uuid.uuid4().hex[:8]}", **life)
    person = await joins(answer, microphone=microphone)
    try:
        yield answer, person, await person.answered(within_s=20)
    finally:
        await person.leave()


async def ask(caller: Caller, room: str, **life: object) -> dict[str, Any]:
    agents = [{"agent_name": AGENT, "metadata": json.dumps(life)}]
    return await asyncio.to_thread(caller.post, room_name=room, room_config={"agents": agents})


async def record(caller: Caller, answer: dict[str, Any]) -> dict[str, Any]:
    return await asyncio.to_thread(caller.record, answer["dispatch_id"])


async def until(
    caller: Caller, answer: dict[str, Any], *states: str, within_s: float
) -> dict[str, Any]:
    try:
        return await asyncio.to_thread(
            lambda: caller.wait_for_state(answer["dispatch_id"], *states, within_s=within_s)
        )
    except AssertionError as late:
        now = await record(caller, answer)
        raise AssertionError(f"{late}; it is {now['state']}: {now['timeline']}") from None


async def eventually(what: str, look: Callable[[], bool], *, within_s: float) -> float:
    """How long it took until `look` was true; fails after `within_s`."""
    began = time.monotonic()
    while not await asyncio.to_thread(look):
        assert time.monotonic() < began + within_s, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.05)
    return time.monotonic() - began


def events(found: dict[str, Any]) -> list[str]:
    return [event["event"] for event in found["timeline"]]


def detail(found: dict[str, Any], event: str) -> dict[str, str]:
    details = [e["detail"] for e in found["timeline"] if e["event"] == event]
    assert details, f"no {event} in {found['timeline']}"
    told: dict[str, str] = details[-1]
    return told


def counted(stack: RunningStack) -> ClientFigures:
    (client,) = run_step(stack, figures(Window.ALL, [stack.usher_client_id])).clients
    return client


# ---- an agent that is ended against its will


async def test_a_program_that_raises_in_its_session_is_replaced_and_named(
    stack: RunningStack, caller: Caller
) -> None:
    lost_before = (await asyncio.to_thread(counted, stack)).agents_lost

    async with a_session(caller, raise_after_s=2, once=True) as (answer, person, first):
        await eventually(
            "the loss",
            lambda: "agent_lost" in events(caller.record(answer["dispatch_id"])),
            within_s=10,
        )
        await person.answered(within_s=REPLACED_WITHIN_S, by_another_than=first)
        found = await record(caller, answer)

    reason = detail(found, "agent_lost")["reason"]
    assert "RuntimeError at tests.acceptance.ordinary:" in reason
    assert CONFIDENTIAL not in json.dumps(found)
    assert (found["state"], found["generation"]) == ("joined", 2)
    assert (await asyncio.to_thread(counted, stack)).agents_lost == lost_before + 1


async def test_a_program_that_raises_before_it_connects_is_tried_again_at_once(
    stack: RunningStack, caller: Caller
) -> None:
    async with a_session(caller, raise_before=True, once=True) as (answer, _, _):
        found = await until(caller, answer, "joined", within_s=10)

    crash = next(event for event in found["timeline"] if event["event"] == "agent_crashed")
    accepted = [event["at_ms"] for event in found["timeline"] if event["event"] == "accepted"]
    assert "RuntimeError at tests.acceptance.ordinary:" in crash["detail"]["reason"]
    assert accepted[1] - accepted[0] < 2000
    assert (await asyncio.to_thread(counted, stack)).agents_crashed >= 1


async def test_a_program_that_always_raises_fails_in_seconds_with_the_truth(
    caller: Caller,
) -> None:
    answer = await ask(caller, f"ordinary-{uuid.uuid4().hex[:8]}", raise_before=True)

    found = await until(caller, answer, "failed", within_s=20)

    assert found["failure_reason"] == "agent_crashed"
    assert "RuntimeError at tests.acceptance.ordinary:" in found["failure_message"]
    assert CONFIDENTIAL not in json.dumps(found)


async def test_an_agent_whose_server_s_drain_time_is_over_is_replaced(
    stack: RunningStack, caller: Caller
) -> None:
    async with a_session(caller) as (answer, person, first):
        found = await record(caller, answer)
        name = "agent" if stack.pids("agent")[0] == _pid_of_server(found) else "agent2"
        os.kill(stack.pids(name)[0], signal.SIGTERM)
        within_s = DRAIN_S + REPLACED_WITHIN_S
        second = await person.answered(within_s=within_s, by_another_than=first)
        found = await until(caller, answer, "joined", within_s=10)
        assert found["agent_identity"] == second

    assert "its agent server has ended it" in detail(found, "agent_lost")["reason"]
    await asyncio.to_thread(wait_ready, caller)


def _pid_of_server(found: dict[str, Any]) -> int:
    return int(detail(found, "accepted")["agent_server_id"].rsplit("-", 2)[1])


async def test_a_job_whose_process_is_killed_is_replaced_without_waiting_for_its_lease(
    stack: RunningStack, caller: Caller
) -> None:
    async with _in_a_process(stack, caller) as (answer, person, first, job):
        await asyncio.sleep(1)  # one renewal that has seen the person
        killed = time.monotonic()
        job.kill()
        await person.answered(within_s=REPLACED_WITHIN_S, by_another_than=first)
        took_s = time.monotonic() - killed
        found = await record(caller, answer)

    assert "SIGKILL" in detail(found, "agent_lost")["reason"]
    assert took_s < REPLACED_WITHIN_S


@contextlib.asynccontextmanager
async def _in_a_process(
    stack: RunningStack, caller: Caller, *, microphone: bool = False, **life: object
) -> AsyncIterator[tuple[dict[str, Any], Person, str, psutil.Process]]:
    """A session whose job has a process of its own, and that process."""
    port = int(stack.livekit_url.rpartition(":")[2])

    def jobs() -> set[psutil.Process]:
        found = set()
        for process in psutil.Process(stack.pids("agent")[0]).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(c.raddr and c.raddr.port == port for c in process.net_connections("tcp")):
                    found.add(process)
        return found

    for _ in range(24):  # the other agent server takes as many
        before = await asyncio.to_thread(jobs)
        async with a_session(caller, microphone=microphone, **life) as (answer, person, first):
            found = await record(caller, answer)
            if _pid_of_server(found) != stack.pids("agent")[0]:
                continue
            (job,) = await asyncio.to_thread(jobs) - before
            yield answer, person, first, job
            return
    raise AssertionError("no session was given to the agent server with processes")


# ---- presence is not service


@pytest.mark.parametrize("gap_s", [0, 0.3, 1, 3, 10])
@pytest.mark.parametrize(
    "life",
    [{}, {"session": True}, {"ends_when_left": 3}],
    ids=["stays", "AgentSession", "slow to leave"],
)
async def test_who_reloads_the_page_is_answered_and_by_one_agent(
    stack: RunningStack, caller: Caller, life: dict[str, Any], gap_s: float
) -> None:
    async with a_session(caller, **life) as (answer, person, _):
        room = answer["room_name"]
        await person.leave()
        await asyncio.sleep(gap_s)
        again = await ask(caller, room, **life)
        back = await joins(again)
        try:
            agent = await back.answered(within_s=ANSWERS_WITHIN_S)
            await eventually(
                "the other one's leaving",
                lambda: active_agents(stack, room)[room] == [agent],
                within_s=OUT_WITHIN_S,
            )
            settled = time.monotonic()
            assert await back.answered(within_s=ANSWERS_WITHIN_S) == agent
            assert {who for at, who in back.answers if at > settled} == {agent}
        finally:
            await back.leave()


async def test_an_agent_that_is_leaving_says_so_and_gives_way_to_another(
    stack: RunningStack, caller: Caller
) -> None:
    async with a_session(caller, microphone=True, ends_when_left=8) as (answer, person, first):
        room = answer["room_name"]
        await person.leave()
        found = await until(caller, answer, "leaving", within_s=2)
        assert detail(found, "agent_leaving")["reason"] == "my person has left"
        there = await asyncio.to_thread(active_agents, stack, room)
        assert there[room] == [first]  # it saves what was said

        again = await ask(caller, room)
        assert again["dispatch_id"] != answer["dispatch_id"]
        await eventually(
            "the old agent's leaving",
            lambda: first not in active_agents(stack, room)[room],
            within_s=OUT_WITHIN_S,
        )
        back = await joins(again)
        await back.answered(within_s=ANSWERS_WITHIN_S, by_another_than=first)
        await back.leave()
    await until(caller, answer, "ended", within_s=15)


async def test_a_leaving_agent_that_hangs_is_removed_when_another_serves_its_people(
    stack: RunningStack, caller: Caller
) -> None:
    a_process = _in_a_process(stack, caller, microphone=True, session=True)
    async with a_process as (answer, person, first, job):
        room = answer["room_name"]
        await person.leave()
        await until(caller, answer, "leaving", within_s=2)
        job.suspend()
        try:
            back = await joins(await ask(caller, room))
            second = await back.answered(within_s=ANSWERS_WITHIN_S, by_another_than=first)
            await eventually(
                "the hanging agent's removal",
                lambda: active_agents(stack, room)[room] == [second],
                within_s=LEASE_S + 1.0,
            )
        finally:
            job.resume()
        await back.answered(within_s=ANSWERS_WITHIN_S)
        await back.leave()
    await until(caller, answer, "ended", within_s=5)


async def test_a_leaving_agent_that_hung_gives_way_although_its_successor_is_leaving_too(
    stack: RunningStack, caller: Caller
) -> None:
    a_process = _in_a_process(stack, caller, microphone=True, session=True)
    async with a_process as (answer, person, first, job):
        room = answer["room_name"]
        await person.leave()
        await until(caller, answer, "leaving", within_s=2)
        job.suspend()
        try:
            again = await ask(caller, room, session=True)
            back = await joins(again, microphone=True)
            await back.answered(within_s=ANSWERS_WITHIN_S, by_another_than=first)
            await back.leave()
            await until(caller, again, "leaving", within_s=2)
        finally:
            job.resume()
        await eventually(
            "the first agent's leaving",
            lambda: first not in active_agents(stack, room)[room],
            within_s=OUT_WITHIN_S,
        )
        await until(caller, answer, "ended", within_s=2)


async def test_an_agent_that_could_not_tell_of_a_person_who_is_back_tells_it_later(
    stack: RunningStack, caller: Caller
) -> None:
    """Its `AgentSession` is over; Redis is away for longer than one telling of it is tried."""
    async with a_session(caller, microphone=True, session=True) as (answer, person, first):
        await person.leave()
        await until(caller, answer, "leaving", within_s=5)
        assert "stopped" in await asyncio.to_thread(stack.supervisorctl, "stop", "servers:redis")
        try:
            back = await joins(answer)
            await asyncio.sleep(_TELL_FOR_S + 3)  # in which it gave up for good
        finally:
            started = await asyncio.to_thread(stack.supervisorctl, "start", "servers:redis")
        assert "started" in started
        await back.answered(within_s=15, by_another_than=first)
        told = detail(await record(caller, answer), "came_back")
        assert "job_id" in told, f"not its agent, but a worker that has found it silent: {told}"
        await back.leave()


async def test_an_agent_that_nobody_comes_to_is_out_of_the_room_although_its_program_waits(
    stack: RunningStack, caller: Caller
) -> None:
    answer = await ask(caller, f"ordinary-{uuid.uuid4().hex[:8]}", never_returns=True)
    await until(caller, answer, "cancelled", within_s=ABANDON_AFTER_S + 15)

    await eventually(
        "the agent's leaving",
        lambda: not active_agents(stack, answer["room_name"])[answer["room_name"]],
        within_s=OUT_WITHIN_S,
    )


async def test_a_room_that_is_deleted_ends_the_session_at_once_although_its_program_waits(
    stack: RunningStack, caller: Caller
) -> None:
    async with a_session(caller, never_returns=True) as (answer, _, _):
        await asyncio.to_thread(end_rooms, stack, answer["room_name"])
        found = await until(caller, answer, "ended", within_s=OUT_WITHIN_S)

    assert detail(found, "agent_left")["reason"] == "room deleted"


async def test_other_metadata_for_a_room_whose_people_have_left_is_a_new_session(
    stack: RunningStack, caller: Caller
) -> None:
    async with a_session(caller, microphone=True, note="first") as (answer, person, first):
        room = answer["room_name"]
        await person.leave()
        await asyncio.sleep(1.5)  # the agent stays, and has said that it is alone
        again = await ask(caller, room, note="second")
        assert again["dispatch_id"] != answer["dispatch_id"]
        back = await joins(again)
        await back.answered(within_s=ANSWERS_WITHIN_S, by_another_than=first)
        await eventually(
            "the first agent's leaving",
            lambda: len(active_agents(stack, room)[room]) == 1,
            within_s=OUT_WITHIN_S,
        )
        await back.leave()
    await until(caller, answer, "ended", within_s=5)


# ---- a slow start is not a death


@pytest.mark.parametrize(
    "life", [{"sleep_before_s": 7}, {"block_before_s": 7}], ids=["waits", "blocks its loop"]
)
async def test_an_agent_that_takes_seven_seconds_to_connect_is_not_replaced(
    caller: Caller, life: dict[str, Any]
) -> None:
    async with a_session(caller, **life) as (answer, _, _):
        found = await until(caller, answer, "joined", within_s=5)

    assert found["generation"] == 1
    assert 7000 < found["time_to_join_ms"] < 12_000


async def test_an_agent_that_is_still_starting_at_the_deadline_is_not_called_dead(
    caller: Caller,
) -> None:
    answer = await ask(caller, f"ordinary-{uuid.uuid4().hex[:8]}", sleep_before_s=40)

    found = await until(caller, answer, "failed", within_s=25)

    assert found["failure_reason"] == "join_timeout"
    assert "still starting" in found["failure_message"]
    assert found["generation"] == 1


# ---- agents of the same name that Usher has not sent


@pytest.mark.parametrize("when", ["before", "after"])
async def test_another_backend_s_agent_is_put_out_told_and_counted(
    stack: RunningStack, caller: Caller, when: str
) -> None:
    room = f"ordinary-{uuid.uuid4().hex[:8]}"
    foreign_before = (await asyncio.to_thread(counted, stack)).foreign_agents
    if when == "before":
        await _send_another(stack, room)
        await eventually(
            "the foreign agent", lambda: bool(active_agents(stack, room)[room]), within_s=15
        )
    answer = await ask(caller, room)
    person = await joins(answer)
    try:
        found = await until(caller, answer, "joined", within_s=20)
        if when == "after":
            await _send_another(stack, room)
            await eventually(
                "two agents", lambda: len(active_agents(stack, room)[room]) == 2, within_s=15
            )
        await eventually(
            "only the agent of the dispatch",
            lambda: active_agents(stack, room)[room] == [found["agent_identity"]],
            within_s=5,
        )
        assert await person.answered(within_s=5) == found["agent_identity"]
        found = await record(caller, answer)
    finally:
        await person.leave()

    assert detail(found, "foreign_agent")["agent_identity"] != found["agent_identity"]
    assert found["generation"] == 1
    assert (await asyncio.to_thread(counted, stack)).foreign_agents == foreign_before + 1


async def _send_another(stack: RunningStack, room: str) -> None:
    async with api.LiveKitAPI(
        stack.livekit_url, stack.livekit_api_key, stack.livekit_api_secret, failover=False
    ) as livekit:
        request = api.CreateAgentDispatchRequest(agent_name=AGENT, room=room)
        await livekit.agent_dispatch.create_dispatch(request)


async def test_usher_s_own_log_lines_have_no_exception_s_text(
    stack: RunningStack, caller: Caller
) -> None:
    async with a_session(caller, raise_before=True, once=True) as (answer, _, _):
        dispatch_id = answer["dispatch_id"]

    lines = [line for name in ("agent", "agent2") for line in stack.log(name).splitlines()]
    ours = [line for line in lines if dispatch_id in line]
    assert any("agent_crashed" in line for line in ours)
    assert not [line for line in ours if CONFIDENTIAL in line]
