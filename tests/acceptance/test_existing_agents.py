"""Does an agent that is not ours get what it is promised, with and without the two lines?

One stack with three programs: `examples/agent.py` as it is, the same without what README.md's diff
adds to it, and one that runs its jobs in threads and calls `rtc_session` instead of decorating.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
import redis
from livekit import api

from devstack import PROJECT_ROOT
from dispatcher.domain.metrics import AgentFigures, ClientFigures, Window
from dispatcher.ledger.statistics import figures
from tests.support.stacks import RunningStack, running_stack

from .session import Caller, active_agents, end_rooms, run_step, wait_for
from .test_outages import stopped
from .test_recovery import in_thread, joined_again, one_agent, person

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

GUARDED, ORDINARY, THREADED = "session-agent-rag", "ordinary-agent", "threaded-agent"
EXAMPLE = PROJECT_ROOT / "examples" / "agent.py"
ABANDON_AFTER_S = 6
JOINS_WITHIN_S = 40
LISTED_WHEN_DEAD_S = 21  # by LiveKit


def readme_diff() -> tuple[list[str], list[str]]:
    """The lines that README.md's diff takes away, and those that it adds."""
    block = (PROJECT_ROOT / "README.md").read_text().partition("```diff\n")[2].partition("```")[0]
    lines = block.splitlines()
    return (
        [line[1:] for line in lines if line.startswith("-")],
        [line[1:] for line in lines if line.startswith("+")],
    )


def ordinary_program() -> str:
    """The example as it was before somebody followed the README."""
    (removed,), (imported, added) = readme_diff()
    program = EXAMPLE.read_text()
    assert program.count(f"{imported}\n") == program.count(f"{added}\n") == 1
    program = program.replace(f"{imported}\n", "").replace(added, removed)
    assert "worker_agent" not in program
    # By default it reports the machine's load, and a machine that runs tests would get no jobs.
    program = program.replace("AgentServer(", "AgentServer(load_fnc=lambda: 0.0, ", 1)
    return program.replace(GUARDED, ORDINARY)


def threaded_program() -> str:
    """The example with the other executor, and with the other way to register."""
    _, (_, decorator) = readme_diff()
    program = EXAMPLE.read_text()
    for old, new in (
        (decorator + "\n", ""),
        ("import AgentServer,", "import AgentServer, JobExecutorType,"),
        ("AgentServer(", "AgentServer(job_executor_type=JobExecutorType.THREAD, "),
        ("if __name__", f'rtc_session(server, entrypoint, agent_name="{THREADED}")\n\nif __name__'),
    ):
        assert program.count(old) == 1, old
        program = program.replace(old, new)
    return program


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack whose agent server is the example, and beside it the ordinary program."""
    folder = tmp_path_factory.mktemp("agents")
    (folder / "ordinary.py").write_text(ordinary_program())
    (folder / "threaded.py").write_text(threaded_program())
    kept = [
        line
        for line in (PROJECT_ROOT / "Procfile").read_text().splitlines()
        if not line.startswith("agent:")
    ]
    kept += [
        f"agent: PORT=$USHER_AGENT_PORT exec python {EXAMPLE} start",
        f"ordinary: PORT=0 exec python {folder / 'ordinary.py'} start",
        f"threaded: PORT=0 exec python {folder / 'threaded.py'} start",
    ]
    (folder / "Procfile").write_text("\n".join(kept) + "\n")
    environ = {
        "USHER_AGENT_NAMES": f"{GUARDED},{ORDINARY},{THREADED}",
        "USHER_UNFENCED_AGENTS": ORDINARY,
        "USHER_ABANDON_AFTER_S": str(ABANDON_AFTER_S),
        "USHER_DEADLINE_S": str(JOINS_WITHIN_S),
        "USHER_AGENT_SLOTS": "7",
        "USHER_AGENT_CONTAINER": "somebody-elses",
    }
    run_dir = tmp_path_factory.mktemp("existing")
    with running_stack(run_dir, environ=environ, procfile=folder / "Procfile") as running:
        registered(running, "ordinary", 1)
        registered(running, "threaded", 1)
        yield running


@pytest.fixture(scope="module")
def caller(stack: RunningStack) -> Iterator[Caller]:
    caller = Caller(stack)
    with caller.http:
        yield caller


@pytest.fixture
def raw(stack: RunningStack) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as client:
        yield client


def registered(stack: RunningStack, name: str, times: int) -> None:
    """Return when the program has registered so often at LiveKit."""
    wait_for(
        f"{name}'s registering",
        lambda: stack.log(name).count("registered worker") >= times or None,
        within_s=30,
    )


def counted(stack: RunningStack) -> tuple[ClientFigures, dict[str, AgentFigures]]:
    """What was counted of the stack's client, and of each agent."""
    found = run_step(stack, figures(Window.ALL, [stack.usher_client_id]))
    (client,) = found.clients
    return client, {each.agent_name: each for each in found.agents}


def kill_jobs(stack: RunningStack, name: str) -> None:
    """Kill the processes of that program which are in a room."""
    port = int(stack.livekit_url.rpartition(":")[2])
    jobs = [
        process
        for process in psutil.Process(stack.pids(name)[0]).children(recursive=True)
        if any(c.raddr and c.raddr.port == port for c in process.net_connections("tcp"))
    ]
    assert jobs
    for job in jobs:
        job.kill()


async def send_another(stack: RunningStack, room: str, agent_name: str) -> None:
    """Somebody else has LiveKit send one more agent into the room."""
    async with api.LiveKitAPI(
        stack.livekit_url, stack.livekit_api_key, stack.livekit_api_secret, failover=False
    ) as livekit:
        await livekit.agent_dispatch.create_dispatch(
            api.CreateAgentDispatchRequest(agent_name=agent_name, room=room)
        )


def events(record: dict[str, object]) -> list[str]:
    timeline = record["timeline"]
    assert isinstance(timeline, list)
    return [event["event"] for event in timeline]


async def test_a_program_with_the_two_lines_claims_is_counted_and_is_replaced_when_it_dies(
    stack: RunningStack, caller: Caller
) -> None:
    answer = await asyncio.to_thread(caller.post)
    async with person(answer):
        first = await joined_again(caller, answer["dispatch_id"])
        record = await asyncio.to_thread(caller.wait_until_agent_said_so, answer["dispatch_id"])
        assert {"accepted", "agent_connected", "joined"} <= set(events(record))
        assert record["container"] == "somebody-elses"
        before = counted(stack)[1][GUARDED]
        assert (before.accept_reasons, before.joins) == ({"claimed": 1}, 1)
        await asyncio.sleep(1.5)  # one renewal that has seen the person
        killed = time.monotonic()
        kill_jobs(stack, "agent")
        second = await joined_again(caller, answer["dispatch_id"], after=first["generation"])
        took_s = time.monotonic() - killed
        assert took_s < 5
        assert second["agent_identity"] != record["agent_identity"]
        await in_thread(lambda: one_agent(stack, answer["room_name"], for_s=3))
        assert counted(stack)[1][GUARDED].accept_reasons == {"claimed": 2}
    await asyncio.to_thread(end_rooms, stack, answer["room_name"])
    await asyncio.to_thread(caller.wait_for_state, answer["dispatch_id"], "ended", within_s=30)
    assert "job accepted" in stack.log("agent")


def test_readiness_and_the_slots_of_a_program_with_the_two_lines(
    stack: RunningStack, caller: Caller, raw: redis.Redis
) -> None:
    reports = raw.hvals("usher:agent_servers")
    assert len(reports) == 2  # the ordinary one reports nothing
    assert all('"slots": 7' in report for report in reports)
    assert caller.http.get("/readyz").json()["not_ready"] == []
    with stopped(stack, "agent"):
        # At once: on its way out it takes its report away.
        assert caller.http.get("/readyz").json()["not_ready"] == [f"agent:{GUARDED}"]
    wait_for(
        "the program's report",
        lambda: caller.http.get("/readyz").json()["not_ready"] == [] or None,
        within_s=30,
    )


def test_a_program_with_the_two_lines_and_without_redis_url_says_so_in_one_line() -> None:
    """And ends, leaving nothing running."""
    environ = {name: value for name, value in os.environ.items() if name != "REDIS_URL"} | {
        "PORT": "0",
        "PYTHONPATH": str(PROJECT_ROOT),
        "LIVEKIT_URL": "ws://127.0.0.1:1",
        "LIVEKIT_API_KEY": "key",
        "LIVEKIT_API_SECRET": "secret" * 8,
    }
    ended = subprocess.run(
        [sys.executable, str(EXAMPLE), "start"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert ended.stderr.splitlines()[-1] == (
        "Usher cannot start, set these environment variables right: REDIS_URL: is not set"
    )


def test_a_program_that_calls_rtc_session_and_runs_its_jobs_in_threads(
    stack: RunningStack, caller: Caller
) -> None:
    answer = ask_for(caller, THREADED)
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
    record = caller.wait_until_agent_said_so(answer["dispatch_id"])
    assert {"accepted", "agent_connected", "joined"} <= set(events(record))
    found = counted(stack)[1][THREADED]
    assert (found.accept_reasons, found.joins) == ({"claimed": 1}, 1)
    end_rooms(stack, answer["room_name"])
    caller.wait_for_state(answer["dispatch_id"], "ended", within_s=30)


async def test_a_second_agent_beside_an_ordinary_program_s_is_detected_and_put_out(
    stack: RunningStack, caller: Caller
) -> None:
    answer = await asyncio.to_thread(ask_for, caller, ORDINARY)
    async with person(answer):
        record = await ordinary_joined(caller, answer)
        assert "accepted" not in events(record)  # nobody has claimed it: LiveKit lists it
        room = answer["room_name"]
        await send_another(stack, room, ORDINARY)
        await in_thread(
            lambda: wait_for(
                "two agents",
                lambda: len(active_agents(stack, room)[room]) == 2 or None,
                within_s=30,
            )
        )
        await in_thread(
            lambda: wait_for(
                "one agent",
                lambda: len(active_agents(stack, room)[room]) == 1 or None,
                within_s=30,
            )
        )
        await in_thread(lambda: one_agent(stack, room, for_s=4))
        assert active_agents_now(await agents(stack, room)) == record["agent_identity"]
        after = caller.record(answer["dispatch_id"])
        assert (after["state"], after["generation"]) == ("joined", record["generation"])
        assert events(after)[-1] == "surplus_agent"
        assert counted(stack)[0].surplus_agents == 1
        assert "surplus_agent" in stack.log("dispatch")  # which looks after those that are there
    await asyncio.to_thread(end_rooms, stack, answer["room_name"])
    await asyncio.to_thread(caller.wait_for_state, answer["dispatch_id"], "ended", within_s=30)


async def agents(stack: RunningStack, room: str) -> list[str]:
    return (await asyncio.to_thread(active_agents, stack, room))[room]


async def ordinary_joined(caller: Caller, answer: dict[str, str]) -> dict[str, Any]:
    """The record once LiveKit lists the ordinary program's agent."""
    return await asyncio.to_thread(
        caller.wait_for_state, answer["dispatch_id"], "joined", within_s=JOINS_WITHIN_S
    )


def active_agents_now(found: list[str]) -> str:
    (identity,) = found
    return identity


def ask_for(caller: Caller, agent_name: str) -> dict[str, str]:
    """Ask for a session with that agent."""
    return caller.post(room_config={"agents": [{"agent_name": agent_name}]})


async def test_an_ordinary_program_s_agent_that_dies_is_replaced_once_livekit_drops_it(
    stack: RunningStack, caller: Caller
) -> None:
    answer = await asyncio.to_thread(ask_for, caller, ORDINARY)
    async with person(answer):
        record = await ordinary_joined(caller, answer)
        killed = time.monotonic()
        kill_jobs(stack, "ordinary")
        await in_thread(
            lambda: wait_for(
                "its loss",
                lambda: "agent_lost" in events(caller.record(answer["dispatch_id"])) or None,
                within_s=LISTED_WHEN_DEAD_S + 30,
            )
        )
        again = await ordinary_joined(caller, answer)
        print(f"replaced {time.monotonic() - killed:.1f} s after its death")
        assert again["generation"] > record["generation"]
        assert again["agent_identity"] != record["agent_identity"]
        await in_thread(lambda: one_agent(stack, answer["room_name"], for_s=4))
    await asyncio.to_thread(end_rooms, stack, answer["room_name"])


def test_a_dispatch_made_while_the_ordinary_program_is_away_joins_when_it_is_back(
    stack: RunningStack, caller: Caller
) -> None:
    times = stack.log("ordinary").count("registered worker")
    with stopped(stack, "ordinary"):
        answer = ask_for(caller, ORDINARY)
        caller.wait_for_state(answer["dispatch_id"], "dispatched", within_s=30)
    registered(stack, "ordinary", times + 1)
    back = time.monotonic()
    record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=JOINS_WITHIN_S)
    print(f"joined {time.monotonic() - back:.1f} s after registering")
    one_agent(stack, answer["room_name"], for_s=3)
    assert record["state"] == "joined"
    end_rooms(stack, answer["room_name"])


def test_an_ordinary_program_s_agent_that_nobody_comes_to_is_put_out(
    stack: RunningStack, caller: Caller
) -> None:
    answer = ask_for(caller, ORDINARY)
    room = answer["room_name"]
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=JOINS_WITHIN_S)
    record = caller.wait_for_state(
        answer["dispatch_id"], "cancelled", within_s=ABANDON_AFTER_S + 30
    )
    assert record["failure_reason"] == "nobody_came"
    wait_for("its leaving", lambda: active_agents(stack, room)[room] == [] or None, within_s=30)
