"""Does a session get its one agent when Usher gives the job to an agent server by itself?"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatcher.domain.models import AgentServerReport
from dispatcher.ledger import reports
from tests.conftest import PATIENT
from tests.faults.agents import agent_server
from tests.support.stacks import RunningStack, running_stack

from .session import Caller, active_agents, delete_room, run_step, wait_for, wait_ready

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

TWO = "agent-of-two-servers"
JOINS_WITHIN_S = 20


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack with direct placement, and an agent name that the tests serve themselves."""
    environ = {
        **PATIENT,
        "USHER_PLACEMENT": "direct",
        "USHER_AGENT_NAMES": f"session-agent-rag,{TWO}",
    }
    with running_stack(tmp_path_factory.mktemp("direct"), environ=environ) as running:
        yield running


@pytest.fixture(scope="module")
def caller(stack: RunningStack) -> Iterator[Caller]:
    caller = Caller(stack)
    with caller.http:
        wait_ready(caller)
        yield caller


def events(record: dict[str, Any], name: str) -> list[dict[str, Any]]:
    return [event for event in record["timeline"] if event["event"] == name]


def joined(caller: Caller, answer: dict[str, Any]) -> dict[str, Any]:
    return caller.wait_for_state(answer["dispatch_id"], "joined", within_s=JOINS_WITHIN_S)


def servers(stack: RunningStack, name: str) -> list[AgentServerReport]:
    found = run_step(stack, reports.agent_servers())
    return [each for each in found if each.agent_name == name and each.online]


def test_a_session_joins_without_livekits_dispatch(stack: RunningStack, caller: Caller) -> None:
    record = joined(caller, caller.post(room_name="direct-1"))

    assert active_agents(stack, "direct-1")["direct-1"] == [record["agent_identity"]]
    (sent,) = events(record, "dispatched")
    assert sent["detail"]["placement"] == "direct"
    (server,) = servers(stack, "session-agent-rag")
    assert sent["detail"]["agent_server_id"] == server.agent_server_id
    assert record["attempts"][0]["livekit_dispatch_id"] is None


def test_a_cancelled_session_loses_its_agent(stack: RunningStack, caller: Caller) -> None:
    record = joined(caller, caller.post(room_name="direct-2"))

    caller.http.delete(f"/api/v1/dispatches/{record['dispatch_id']}")

    wait_for(
        "the agent's leaving",
        lambda: not active_agents(stack, "direct-2")["direct-2"] or None,
        within_s=5,
    )


def test_a_deleted_room_ends_the_session(stack: RunningStack, caller: Caller) -> None:
    record = joined(caller, caller.post(room_name="direct-3"))

    delete_room(stack, "direct-3")

    caller.wait_for_state(record["dispatch_id"], "ended", within_s=10)


def test_a_frozen_agent_server_is_passed_by(
    stack: RunningStack, caller: Caller, tmp_path: Path
) -> None:
    wanted = {"agents": [{"agent_name": TWO}]}
    with (
        agent_server(stack, tmp_path / "1.log", name=TWO, slots=40) as frozen,
        agent_server(stack, tmp_path / "2.log", name=TWO, slots=20),
    ):
        wait_for("two", lambda: len(servers(stack, TWO)) == 2 or None, within_s=60)
        os.kill(frozen.pid, signal.SIGSTOP)  # it has the most room
        try:
            record = joined(caller, caller.post(room_name="direct-4", room_config=wanted))
        finally:
            os.kill(frozen.pid, signal.SIGCONT)

        first, second = events(record, "dispatched")
        assert (first["detail"]["placement"], second["detail"]["placement"]) == ("direct", "direct")
        assert first["detail"]["agent_server_id"] != second["detail"]["agent_server_id"]
        assert record["generation"] == 2
        print("time to join past a frozen agent server (ms):", record["time_to_join_ms"])
        assert record["time_to_join_ms"] <= 1500
        until = time.monotonic() + 3
        while time.monotonic() < until:  # the one that goes on has the old job, and drops it
            assert active_agents(stack, "direct-4")["direct-4"] == [record["agent_identity"]]
            time.sleep(0.2)


def test_a_draining_agent_server_gets_no_session_and_keeps_its_own(
    stack: RunningStack, caller: Caller, tmp_path: Path
) -> None:
    wanted = {"agents": [{"agent_name": TWO}]}
    with agent_server(stack, tmp_path / "1.log", name=TWO, slots=40) as leaving:
        wait_for("one", lambda: len(servers(stack, TWO)) == 1 or None, within_s=60)
        old = joined(caller, caller.post(room_name="direct-5", room_config=wanted))
        with agent_server(stack, tmp_path / "2.log", name=TWO, slots=20):
            wait_for("two", lambda: len(servers(stack, TWO)) == 2 or None, within_s=60)
            leaving.terminate()

            new = joined(caller, caller.post(room_name="direct-6", room_config=wanted))

            servers_of = [events(each, "dispatched")[-1]["detail"] for each in (old, new)]
            assert servers_of[0]["agent_server_id"] != servers_of[1]["agent_server_id"]
            assert active_agents(stack, "direct-5")["direct-5"] == [old["agent_identity"]]
