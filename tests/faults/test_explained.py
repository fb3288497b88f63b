"""Does `dispatch show` name the true cause of a failed session, from its id alone?

Each fault of docs/faults.md that can cost a session its agent is made for longer than its deadline.
Those that only delay one are told of in test_moments.py, where they are made.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from livekit import rtc

from tests.acceptance.test_recovery import job_processes
from tests.support.shell import Shell
from tests.support.stacks import RunningStack, running_stack
from tests.support.values import told_of

from .agents import agent_server
from .stacks import Caller, end_room, frozen, redis_of, stopped, wait_for, wait_ready

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

DEADLINE_S = 8
ENDS_S = DEADLINE_S + 10
NOBODY = "agent-that-is-not-there"
NAMES = ("session-agent-rag", NOBODY, "agent-small", "agent-refused")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    environ = {
        "USHER_AGENT_NAMES": ",".join(NAMES),
        "USHER_DEADLINE_S": str(DEADLINE_S),
        "USHER_ABANDON_AFTER_S": "3",
        "USHER_MAX_LOSSES": "1",
    }
    with running_stack(tmp_path_factory.mktemp("told"), environ=environ) as running:
        yield running


@pytest.fixture(scope="module")
def shell(stack: RunningStack) -> Shell:
    return Shell(stack)


@pytest.fixture
def caller(stack: RunningStack) -> Iterator[Caller]:
    caller = Caller(stack)
    with caller.http:
        yield caller
        wait_ready(caller)


def ask(caller: Caller, agent_name: str = NAMES[0]) -> str:
    """The id of a new session with that agent."""
    answer = caller.post(room_config={"agents": [{"agent_name": agent_name}]})
    return str(answer["dispatch_id"])


def told(shell: Shell, dispatch_id: str, *, code: int = 0) -> dict[str, Any]:
    """What the operator reads."""
    ran = shell.run("show", dispatch_id, "--json")
    assert ran.code == code, ran.out + ran.err
    explanation: dict[str, Any] = ran.json["explanation"]
    assert explanation["advice"]
    return explanation


def test_no_agent_server_for_that_name(stack: RunningStack, shell: Shell, caller: Caller) -> None:
    dispatch_id = ask(caller, NOBODY)
    caller.wait_for_state(dispatch_id, "waiting", within_s=DEADLINE_S)
    now = told_of(stack.redis_url, dispatch_id)
    assert f"Waiting: no agent server for agent '{NOBODY}' is online" in now
    caller.wait_for_state(dispatch_id, "failed", within_s=ENDS_S)

    explanation = told(shell, dispatch_id)
    assert explanation["headline"] == f"Failed: no agent server for agent '{NOBODY}' is online"
    assert "correct the agent name" in explanation["cause"]
    assert any("It waited" in line for line in explanation["evidence"])


def test_a_frozen_agent_server(stack: RunningStack, shell: Shell, caller: Caller) -> None:
    with frozen(*stack.pids("agent")):
        dispatch_id = ask(caller)
        caller.wait_for_state(dispatch_id, "failed", within_s=ENDS_S)
    explanation = told(shell, dispatch_id)
    # Its reports lapse after some seconds; before that LiveKit's offers are not answered.
    assert explanation["headline"] in (
        "Failed: no agent server for agent 'session-agent-rag' is online",
        "Failed: the agent did not join in time",
    )
    assert "agent server" in explanation["cause"]


def test_every_slot_taken(
    stack: RunningStack, shell: Shell, caller: Caller, tmp_path: Path
) -> None:
    with agent_server(stack, tmp_path / "agent.log", name="agent-small", slots=1):
        first = caller.post(room_config={"agents": [{"agent_name": "agent-small"}]})
        caller.wait_for_state(first["dispatch_id"], "joined", within_s=ENDS_S)

        async def meanwhile() -> str:
            person = rtc.Room()
            # With somebody in it, or the agent would leave.
            await person.connect(first["server_url"], first["participant_token"])
            second = await asyncio.to_thread(ask, caller, "agent-small")
            await asyncio.to_thread(caller.wait_for_state, second, "failed", within_s=ENDS_S)
            await person.disconnect()
            return second

        second = asyncio.run(meanwhile())
        asyncio.run(end_room(stack, first["room_name"]))
    explanation = told(shell, second)
    assert explanation["headline"] == "Failed: no agent server has room"
    assert "slot" in explanation["cause"]


def test_every_agent_server_refuses(
    stack: RunningStack, shell: Shell, caller: Caller, tmp_path: Path
) -> None:
    with agent_server(stack, tmp_path / "agent.log", name="agent-refused", kind="refusing"):
        dispatch_id = ask(caller, "agent-refused")
        caller.wait_for_state(dispatch_id, "failed", within_s=ENDS_S)
    explanation = told(shell, dispatch_id)
    assert explanation["headline"] == "Failed: the agent servers serve another client"
    assert any("refused the job" in line for line in explanation["evidence"])


def test_livekit_is_away(stack: RunningStack, shell: Shell, caller: Caller) -> None:
    with stopped(stack, "livekit"):
        dispatch_id = ask(caller)
        caller.wait_for_state(dispatch_id, "failed", within_s=ENDS_S)
    explanation = told(shell, dispatch_id)
    assert explanation["headline"] == "Failed: LiveKit does not answer"
    assert "LiveKit" in explanation["cause"]
    assert "LiveKit server of client 'demo'" in explanation["advice"]


def test_no_dispatch_worker(stack: RunningStack, shell: Shell, caller: Caller) -> None:
    with stopped(stack, "dispatch"):
        dispatch_id = ask(caller)
        time.sleep(3)  # longer than it stands in a queue that somebody works on
        now = told_of(stack.redis_url, dispatch_id)
        assert "Queued for " in now
        assert "the workers are away" in now
        time.sleep(DEADLINE_S)  # nobody is there who could end it
    caller.wait_for_state(dispatch_id, "failed", within_s=ENDS_S)
    assert told(shell, dispatch_id)["headline"] == "Failed: no dispatch worker took it up"


async def test_agents_that_keep_dying(stack: RunningStack, shell: Shell, caller: Caller) -> None:
    answer = await asyncio.to_thread(caller.post)
    person = rtc.Room()
    await person.connect(answer["server_url"], answer["participant_token"])
    killed: set[int] = set()

    def kill_each() -> dict[str, Any] | None:
        with contextlib.suppress(psutil.Error, OSError):  # they die while they are looked at
            for job in job_processes(stack):
                state = caller.record(answer["dispatch_id"])["state"]
                if job.pid not in killed and state == "joined":
                    killed.add(job.pid)
                    job.kill()
        record = caller.record(answer["dispatch_id"])
        return record if record["state"] == "failed" else None

    await asyncio.to_thread(wait_for, "its end", kill_each, within_s=60)
    await person.disconnect()
    explanation = await asyncio.to_thread(told, shell, answer["dispatch_id"])
    assert explanation["headline"] == "Failed: its agents keep dying"
    assert any("fell silent" in line for line in explanation["evidence"])


def test_nobody_comes(stack: RunningStack, shell: Shell, caller: Caller) -> None:
    dispatch_id = ask(caller)
    caller.wait_for_state(dispatch_id, "cancelled", within_s=40)

    explanation = told(shell, dispatch_id)
    assert explanation["headline"] == "Cancelled: nobody came into the room"
    assert "nobody has joined the room within" in explanation["cause"].lower()
    assert "on the caller's side" in explanation["advice"]


def test_a_record_that_cannot_be_read(stack: RunningStack, shell: Shell, caller: Caller) -> None:
    dispatch_id = f"dsp_{uuid.uuid4().hex}"
    with redis_of(stack) as client:
        client.hset(f"usher:dispatch:{dispatch_id}", mapping={"state": "nonsense"})
        client.zadd("usher:due", {dispatch_id: 0})
        wait_for("it is parked", lambda: client.hget("usher:parked", dispatch_id), within_s=10)

        explanation = told(shell, dispatch_id, code=1)
        client.hdel("usher:parked", dispatch_id)
        client.delete(f"usher:dispatch:{dispatch_id}")
    assert explanation["headline"].startswith("Parked: ")
    assert "damaged" in explanation["cause"]


def test_an_agent_that_was_replaced(stack: RunningStack, shell: Shell, caller: Caller) -> None:
    answer = caller.post()
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=ENDS_S)

    async def kill_it_before_somebody() -> None:
        person = rtc.Room()
        await person.connect(answer["server_url"], answer["participant_token"])
        # Someone has been seen: it is replaced, not ended.
        await asyncio.sleep(2)
        for job in await asyncio.to_thread(job_processes, stack):
            os.kill(job.pid, signal.SIGKILL)
        await asyncio.to_thread(
            wait_for,
            "the next generation",
            lambda: caller.record(answer["dispatch_id"])["generation"] > 1 or None,
            within_s=30,
        )
        await asyncio.to_thread(
            caller.wait_for_state, answer["dispatch_id"], "joined", within_s=ENDS_S
        )
        await person.disconnect()

    asyncio.run(kill_it_before_somebody())
    explanation = told(shell, answer["dispatch_id"])
    assert "its agent was lost while a person was in the room" in explanation["cause"]
    asyncio.run(end_room(stack, answer["room_name"]))
