"""Does a burst that is too much for one process's agents leave that process alive?

livekit-rtc ends a process one of whose agents has not answered 15 s after its connection. Of 80 at
once in one (threads, two busy cores) one was that late, and took the other 79 with it.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.stacks import running_stack

from .agents import agent_server
from .stacks import Caller, active_agents, wait_for

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

SESSIONS = 80
DEADLINE_S = 60
NAME = "agent-many"


def test_eighty_at_once_in_one_process_all_join(tmp_path: Path) -> None:
    environ = {
        "USHER_AGENT_NAMES": f"session-agent-rag,{NAME}",
        "USHER_DEADLINE_S": str(DEADLINE_S),
    }
    with (
        running_stack(tmp_path / "stack", environ=environ) as stack,
        agent_server(stack, tmp_path / "agent.log", name=NAME, slots=100) as server,
    ):
        caller = Caller(stack)
        with caller.http:
            wanted = {"agents": [{"agent_name": NAME}]}
            answers = [caller.post(room_config=wanted) for _ in range(SESSIONS)]
            ids = [answer["dispatch_id"] for answer in answers]
            wait_for(
                "the end of all",
                lambda: (
                    all(caller.record(one)["state"] in ("joined", "failed") for one in ids) or None
                ),
                within_s=DEADLINE_S + 10,
            )
            records = [caller.record(one) for one in ids]
            agents = active_agents(stack, *(answer["room_name"] for answer in answers))
        alive = server.poll() is None

    assert [record["state"] for record in records] == ["joined"] * SESSIONS
    assert [len(found) for found in agents.values()] == [1] * SESSIONS
    assert alive
    took_ms = sorted(record["time_to_join_ms"] for record in records)
    print("40th and last of 80 (ms):", took_ms[39], took_ms[-1])
    print("generations:", sorted(record["generation"] for record in records))
