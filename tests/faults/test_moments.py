"""Is a session served once, whoever is killed at the very worst moment of its way?

Every process reaches Redis and LiveKit through a gate of the test's own, which holds one request or
one reply while the test kills who waits for it (rows 1-6, 10, 11 and 13 of docs/faults.md).
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from devstack import PROJECT_ROOT
from devstack.supervision import read_procfile
from tests.support.stacks import RunningStack, running_stack
from tests.support.values import told_of

from .gate import Gate, gates
from .stacks import (
    DISPATCH_WORKER,
    ENDPOINT,
    Caller,
    end_room,
    free_ports,
    frozen,
    generations_at_livekit,
    kill,
    one_agent,
    owner_of,
    records_of,
    redis_of,
    through,
    wait_for,
    wait_ready,
    write_procfile,
)

pytestmark = pytest.mark.outage

# What `dispatch show` says of a worker that was killed or frozen with a session in hand.
WORKER_GONE = "Attempt 1: the dispatch worker that had it in hand was killed, frozen or cut off"
CREATE_ROOM = "RoomService/CreateRoom"
# A worker that was killed takes long to start on a busy machine; the session has time for that.
DEADLINE_S = 60
JOINED_WITHIN_S = DEADLINE_S + 10


@dataclass(frozen=True, kw_only=True)
class Gates:
    """Who reaches what through which gate."""

    web_to_redis: Gate
    worker_to_redis: Gate
    worker_to_livekit: Gate
    agent_to_livekit: Gate


@pytest.fixture(scope="module")
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningStack, Gates]]:
    """A stack behind gates, with a second dispatch worker that is started when a test wants it."""
    directory = tmp_path_factory.mktemp("moments")
    ports, environ = free_ports()
    lines = read_procfile(PROJECT_ROOT / "Procfile")
    with gates(ports.redis, ports.redis, ports.livekit, ports.livekit) as opened:
        ways = Gates(
            web_to_redis=opened[0],
            worker_to_redis=opened[1],
            worker_to_livekit=opened[2],
            agent_to_livekit=opened[3],
        )
        procfile = write_procfile(
            directory / "Procfile",
            {
                "web": through(lines["web"], redis_port=ways.web_to_redis.port),
                "dispatch": through(
                    lines["dispatch"],
                    redis_port=ways.worker_to_redis.port,
                    livekit_port=ways.worker_to_livekit.port,
                ),
                "spare": f"exec {DISPATCH_WORKER} --concurrency 8 --hostname spare@%h"
                " --without-mingle --without-gossip",
                "agent": through(lines["agent"], livekit_port=ways.agent_to_livekit.port),
            },
        )
        environ |= {"USHER_AGENT_IDLE_PROCESSES": "2", "USHER_DEADLINE_S": str(DEADLINE_S)}
        with running_stack(directory, environ=environ, procfile=procfile) as stack:
            stack.supervisorctl("stop", "usher:spare")
            yield stack, ways


@pytest.fixture(scope="module")
def stack(gated: tuple[RunningStack, Gates]) -> RunningStack:
    return gated[0]


@pytest.fixture
def ways(gated: tuple[RunningStack, Gates], caller: Caller) -> Iterator[Gates]:
    """The gates; whatever a test did, they are open and everything is ready after it."""
    yield gated[1]
    for gate in vars(gated[1]).values():
        gate.delay_s = 0.0
        gate.forget_catches()
    wait_ready(caller)


@pytest.fixture(scope="module")
def caller(stack: RunningStack) -> Iterator[Caller]:
    caller = Caller(stack)
    with caller.http:
        yield caller


@pytest.fixture
def room(stack: RunningStack) -> Iterator[str]:
    """The name of a room that nobody else uses; it is closed at the end."""
    name = f"room-{uuid.uuid4().hex}"
    yield name
    asyncio.run(end_room(stack, name))


def joined_once(stack: RunningStack, caller: Caller, answer: dict[str, Any]) -> dict[str, Any]:
    """The record, joined; with one agent in the room, one record and one dispatch at LiveKit."""
    room = answer["room_name"]
    record = caller.wait_for_state(
        answer["dispatch_id"], "joined", "failed", within_s=JOINED_WITHIN_S
    )
    assert record["state"] == "joined", record
    assert one_agent(stack, room, for_s=2.5) == record["agent_identity"]
    assert records_of(stack, room) == [answer["dispatch_id"]]
    assert asyncio.run(generations_at_livekit(stack, room)) == [str(record["generation"])]
    return record


def post_and_lose_the_answer(stack: RunningStack, room: str) -> None:
    """Ask for a session; whoever should answer is killed meanwhile."""
    with pytest.raises(httpx.TransportError):
        httpx.post(
            stack.web_url + ENDPOINT,
            json={"room_name": room},
            headers={"Authorization": f"Bearer {stack.api_key}"},
            timeout=20,
            trust_env=False,
        )


def ask_again(caller: Caller, room: str) -> dict[str, Any]:
    """The answer of the web once it is back."""

    def look() -> dict[str, Any] | None:
        try:
            return caller.post(room_name=room)
        except httpx.TransportError:
            return None

    return wait_for("an answer of the web", look, within_s=60)


@pytest.mark.parametrize("written", [False, True], ids=["before", "after"])
async def test_the_web_killed_before_or_after_the_record_is_written_leaves_none_or_one(
    stack: RunningStack, caller: Caller, ways: Gates, room: str, written: bool
) -> None:
    writing = ways.web_to_redis.catch("EVALSHA", room, reply=written)
    asking = asyncio.create_task(asyncio.to_thread(post_and_lose_the_answer, stack, room))
    await asyncio.to_thread(writing.wait)
    before = records_of(stack, room)
    assert len(before) == (1 if written else 0)
    kill(*stack.pids("web"))
    writing.drop()
    await asking
    assert records_of(stack, room) == before
    answer = await asyncio.to_thread(ask_again, caller, room)
    if written:
        assert [answer["dispatch_id"]] == before
    record = await asyncio.to_thread(joined_once, stack, caller, answer)
    assert record["generation"] == 1


def test_a_message_lost_after_it_was_taken_is_made_up_for_by_the_sweeper(
    stack: RunningStack, caller: Caller, ways: Gates, room: str
) -> None:
    # The worker's first step in the ledger names the dispatch, whose room nobody else asks for.
    reading = ways.worker_to_redis.catch("EVALSHA", "usher:dispatch:", "usher:agent_servers")
    answer = caller.post(room_name=room)
    reading.wait()
    kill(*stack.pids("dispatch"))
    reading.drop()
    with redis_of(stack) as client:
        assert all(room not in message for message in client.lrange("dispatch", 0, -1))
    record = joined_once(stack, caller, answer)
    assert record["generation"] == 1
    assert "It stood in the queue for" in told_of(stack.redis_url, answer["dispatch_id"])


def test_a_worker_killed_before_it_asked_livekit_leaves_one_dispatch(
    stack: RunningStack, caller: Caller, ways: Gates, room: str
) -> None:
    asking = ways.worker_to_livekit.catch(CREATE_ROOM)
    answer = caller.post(room_name=room)
    asking.wait()
    kill(*stack.pids("dispatch"))
    asking.drop()
    record = joined_once(stack, caller, answer)
    assert [attempt["outcome"] for attempt in record["attempts"]] == ["abandoned", "joined"]
    assert WORKER_GONE in told_of(stack.redis_url, answer["dispatch_id"])


def test_a_worker_killed_after_livekit_did_it_leaves_one_agent(
    stack: RunningStack, caller: Caller, ways: Gates, room: str
) -> None:
    answering = ways.worker_to_livekit.catch(CREATE_ROOM, reply=True)
    answer = caller.post(room_name=room)
    answering.wait()
    kill(*stack.pids("dispatch"))
    answering.drop()
    record = joined_once(stack, caller, answer)
    assert record["generation"] == 1
    assert "its answer was never written down" in told_of(stack.redis_url, answer["dispatch_id"])


def test_a_worker_killed_after_livekit_did_it_in_vain_leaves_one_agent(
    stack: RunningStack, caller: Caller, ways: Gates, room: str
) -> None:
    # Its agent server stands still: the job is dropped, and only LiveKit knows the dispatch.
    answering = ways.worker_to_livekit.catch(CREATE_ROOM, reply=True)
    with frozen(*stack.pids("agent")):
        answer = caller.post(room_name=room)
        answering.wait()
        kill(*stack.pids("dispatch"))
        answering.drop()
        time.sleep(4)  # for so long, the offer would be answered late; then LiveKit has dropped it
    record = joined_once(stack, caller, answer)
    assert record["agent_identity"]
    # The agent server may still have answered the offer, too late, before it was taken over.
    told = told_of(stack.redis_url, answer["dispatch_id"])
    assert WORKER_GONE in told or "its answer was never written down" in told


def test_a_worker_killed_in_the_moment_of_passing_on_to_verification_changes_nothing(
    stack: RunningStack, caller: Caller, ways: Gates, room: str
) -> None:
    # The step that writes "LiveKit has it" holds the verification's message.
    passing_on = ways.worker_to_redis.catch("EVALSHA", "verify_dispatch", room, reply=True)
    answer = caller.post(room_name=room)
    passing_on.wait()
    kill(*stack.pids("dispatch"))
    passing_on.drop()
    record = joined_once(stack, caller, answer)
    assert record["generation"] == 1
    events = [event["event"] for event in record["timeline"]]
    assert events.count("dispatched") == events.count("joined") == 1


def test_a_verification_whose_message_is_lost_is_made_up_for_by_the_sweeper(
    stack: RunningStack, caller: Caller, ways: Gates, room: str
) -> None:
    with frozen(*stack.pids("verify")):
        answer = caller.post(room_name=room)
        caller.wait_until_agent_said_so(answer["dispatch_id"])
        kill(*stack.pids("verify"))  # Redis has given the message to it
    record = joined_once(stack, caller, answer)
    assert record["generation"] == 1
    told = told_of(stack.redis_url, answer["dispatch_id"])
    assert "before that was verified: the verification's message was lost" in told


def test_a_worker_frozen_past_its_lease_writes_nothing_when_it_goes_on(
    stack: RunningStack, caller: Caller, ways: Gates, room: str
) -> None:
    asking = ways.worker_to_livekit.catch(CREATE_ROOM)
    answer = caller.post(room_name=room)
    asking.wait()
    worker = stack.pids("dispatch")[0]
    try:
        with frozen(worker):
            asking.drop()
            assert "started" in stack.supervisorctl("start", "usher:spare")
            joined_once(stack, caller, answer)
            second = caller.wait_until_agent_said_so(answer["dispatch_id"])
            assert second["generation"] == 2
        # It is in the middle of its tries, for the first generation.
        assert one_agent(stack, room, for_s=6) == second["agent_identity"]
    finally:
        stack.supervisorctl("stop", "usher:spare")
    assert stack.pids("dispatch")[0] == worker
    assert caller.record(answer["dispatch_id"]) == second
    assert asyncio.run(generations_at_livekit(stack, room)) == ["2"]
    assert WORKER_GONE in told_of(stack.redis_url, answer["dispatch_id"])


def test_livekit_killed_during_dispatch_leaves_one_agent_when_it_is_back(
    stack: RunningStack, caller: Caller, ways: Gates, room: str
) -> None:
    asking = ways.worker_to_livekit.catch(CREATE_ROOM)
    answer = caller.post(room_name=room)
    asking.wait()
    kill(stack.pids("livekit")[0])
    asking.drop()
    joined_once(stack, caller, answer)
    assert "Attempt 1, try 1: LiveKit" in told_of(stack.redis_url, answer["dispatch_id"])


def test_a_livekit_that_is_five_seconds_late_brings_one_agent(
    stack: RunningStack, caller: Caller, ways: Gates, room: str
) -> None:
    # Longer than our time-out: the worker has given up and asked again when the first one arrives.
    ways.worker_to_livekit.delay_s = 5.0
    answer = caller.post(room_name=room)
    time.sleep(8)  # the first tries are on their way, the first of them has arrived
    ways.worker_to_livekit.delay_s = 0.0
    joined_once(stack, caller, answer)
    told = told_of(stack.redis_url, answer["dispatch_id"])
    # LiveKit may have carried the first try out when it arrived, its asker gone (seen once): then
    # the agent is of that, and it is told that nobody wrote LiveKit's answer down.
    assert (
        "Attempt 1, try 1: LiveKit did not answer" in told
        or "Attempt 1: LiveKit did as it was asked, and its answer was never written down" in told
    )


def test_a_job_killed_between_accept_and_connect_is_replaced(
    stack: RunningStack, caller: Caller, ways: Gates, room: str
) -> None:
    connecting = ways.agent_to_livekit.catch("GET /rtc")
    answer = caller.post(room_name=room)
    connecting.wait()
    assert caller.record(answer["dispatch_id"])["state"] == "accepted"
    job = owner_of(connecting.client_port, stack, "agent")
    assert job != stack.pids("agent")[0]
    kill(job)
    killed = time.monotonic()
    connecting.drop()
    record = joined_once(stack, caller, answer)
    assert record["generation"] == 2
    assert time.monotonic() - killed < 30  # by what it renews no more, not by the deadline
    assert "its process was killed: SIGKILL" in told_of(stack.redis_url, answer["dispatch_id"])
