"""Does every session get exactly one agent, quickly, and is it told truly when it does not?"""

from __future__ import annotations

import time
from typing import Any

import psutil
import pytest

from dispatcher.domain.metrics import Figures, Window
from dispatcher.ledger.statistics import figures
from tests.support.stacks import RunningStack

from .session import Caller, active_agents, end_rooms, post_at_once, run_step, wait_for

BURST = 20


def _joined_at_the_first_try(
    stack: RunningStack, caller: Caller
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Answer and record of a session; the machine has three chances to start an agent in time."""
    for _ in range(3):
        answer = caller.post(participant_name="Ann")
        record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
        if record["generation"] == 1:
            return answer, record
        end_rooms(stack, answer["room_name"])
    raise AssertionError(f"never at the first try: {record}")


def test_a_session_gets_its_agent_and_the_record_tells_how(
    stack: RunningStack, caller: Caller
) -> None:
    answer, record = _joined_at_the_first_try(stack, caller)
    assert active_agents(stack, answer["room_name"]) == {
        answer["room_name"]: [record["agent_identity"]]
    }
    record = caller.wait_until_agent_said_so(answer["dispatch_id"])
    events = [event["event"] for event in record["timeline"]]
    assert events[0] == "queued"
    # Each of the others is told by whoever does it, when it is done.
    assert sorted(events[1:]) == [
        "accepted",
        "agent_connected",
        "dispatched",
        "dispatching",
        "joined",
        "offered",
    ]
    assert record["state"] == "joined"
    assert [attempt["outcome"] for attempt in record["attempts"]] == ["joined"]
    assert record["attempts"][0]["livekit_dispatch_id"].startswith("AD_")
    assert record["attempts"][0]["tries"] == 1

    def logged() -> str | None:
        """By way of the supervisor, so not at once."""
        lines = stack.log("agent").splitlines()
        accepted = [
            line for line in lines if answer["room_name"] in line and "job accepted" in line
        ]
        return accepted[0] if accepted else None

    line = wait_for("the agent server's log", logged, within_s=30)
    for field in ("container=", "client_id=", "request_type=", "participant_count=", "decision="):
        assert field in line
    assert "reason=claimed" in line
    end_rooms(stack, answer["room_name"])
    caller.wait_for_state(answer["dispatch_id"], "ended", within_s=30)


def test_a_session_has_its_agent_within_three_seconds(stack: RunningStack, caller: Caller) -> None:
    # Up to three times: what else runs on a machine of two cores only ever adds to a time.
    took_ms: list[int] = []
    while len(took_ms) < 3 and min(took_ms, default=3000) >= 3000:
        answer = caller.post()
        record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
        took_ms.append(record["time_to_join_ms"])
        end_rooms(stack, answer["room_name"])
    assert min(took_ms) < 3000, took_ms


def test_sessions_at_once_have_exactly_one_agent_each(stack: RunningStack) -> None:
    # Half as many as in the long test: their agents have to start within the sessions' 20 s.
    took_s = _at_once(stack, BURST // 2)
    print(f"an agent in each of {BURST // 2} rooms after {took_s:.1f} s")


@pytest.mark.long  # 20 agents start at once: that takes as long as the machine is busy otherwise
@pytest.mark.timeout(300)
def test_twenty_sessions_at_once_have_their_agents_within_five_seconds(
    stack: RunningStack,
) -> None:
    # Up to three times: what else runs on a machine of two cores only ever adds to a time.
    took_s: list[float] = []
    while len(took_s) < 3 and min(took_s, default=5.0) >= 5:
        wait_for("an idle machine", lambda: _idle() or None, within_s=30)
        took_s.append(_at_once(stack, BURST))
    assert min(took_s) < 5, took_s


def _at_once(stack: RunningStack, count: int) -> float:
    """Seconds until each of so many rooms has its agent: one, and no other later."""
    started = time.monotonic()
    rooms = [answer["room_name"] for _, answer in post_at_once(stack, count)]

    def all_there() -> dict[str, list[str]] | None:
        agents = active_agents(stack, *rooms)
        return agents if all(agents.values()) else None

    agents = wait_for("an agent in every room", all_there, within_s=30)
    took_s = time.monotonic() - started
    assert [len(identities) for identities in agents.values()] == [1] * count
    # ... and it stays one: nothing late comes after it.
    settled = time.monotonic() + 2
    while time.monotonic() < settled:
        assert all(len(found) == 1 for found in active_agents(stack, *rooms).values())
    end_rooms(stack, *rooms)
    return took_s


def test_counters_in_redis_grow_with_every_session(stack: RunningStack, caller: Caller) -> None:
    def counted() -> Figures:
        return run_step(stack, figures(Window.ALL, [stack.usher_client_id]))

    before = counted()
    answer = caller.post()
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
    record = caller.wait_until_agent_said_so(answer["dispatch_id"])
    after = counted()

    (was,), (now,) = before.clients, after.clients
    grown = {
        name: getattr(now, name) - getattr(was, name)
        for name in ("dispatches", "attempts", "dispatched", "joined")
    }
    assert grown == {"dispatches": 1, "attempts": 1, "dispatched": 1, "joined": 1}
    for name, spread in now.histograms.items():
        assert spread.total > was.histograms[name].total, name
    for name in ("time_to_join", "generations", "tries"):
        assert now.histograms[name].total - was.histograms[name].total == 1
    took_ms = now.histograms["time_to_join"].sum - was.histograms["time_to_join"].sum
    assert took_ms == record["time_to_join_ms"]

    def of_agents(found: Figures) -> tuple[int, int]:
        claimed = (agent.accept_reasons.get("claimed", 0) for agent in found.agents)
        return sum(claimed), sum(agent.joins for agent in found.agents)

    claimed, joins = of_agents(before)
    assert of_agents(after) == (claimed + 1, joins + 1)
    end_rooms(stack, answer["room_name"])


def _idle() -> bool:
    """True when the last burst's agents have gone and been replaced: the processors are free."""
    return psutil.cpu_percent(interval=0.5) < 25


def _p99_s(stack: RunningStack, bursts: int) -> float:
    """The 99th percentile of the answer times of so many bursts, each on an idle machine."""
    times_s: list[float] = []
    for _ in range(bursts):
        wait_for("an idle machine", lambda: _idle() or None, within_s=30)
        answers = post_at_once(stack, BURST)
        times_s += [took_s for took_s, _ in answers]
        end_rooms(stack, *(answer["room_name"] for _, answer in answers))
    return sorted(times_s)[int(len(times_s) * 0.99) - 1]


@pytest.mark.long  # it wants an idle machine, and waits for one
@pytest.mark.timeout(300)
def test_twenty_posts_at_once_are_answered_within_50_ms_at_the_99th_percentile(
    stack: RunningStack,
) -> None:
    # Up to three times: what else runs on a machine of two cores only ever adds to a time.
    p99s_s: list[float] = []
    while len(p99s_s) < 3 and min(p99s_s, default=1.0) >= 0.05:
        p99s_s.append(_p99_s(stack, bursts=5))
    assert min(p99s_s) < 0.05, f"p99 of each try (s): {p99s_s}"
