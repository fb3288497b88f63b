"""Does every session get exactly one agent, quickly, and is it told truly when it does not?"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import redis

from devstack.testing import RunningStack

from .session import ENDPOINT, Caller, active_agents, end_rooms, wait_for

BURST = 20


def test_a_session_gets_its_agent_and_the_record_tells_how(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post(participant_name="Ann")
    record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=5)
    assert record["time_to_join_ms"] < 3000
    assert active_agents(stack, answer["room_name"]) == {
        answer["room_name"]: [record["agent_identity"]]
    }
    events = [event["event"] for event in record["timeline"]]
    assert events[0] == "queued"
    # By a webhook LiveKit may be quicker than the agent's own word.
    assert "joined" in events[-2:]
    assert set(events) == {
        "queued",
        "dispatching",
        "dispatched",
        "offered",
        "accepted",
        "agent_connected",
        "joined",
    }
    assert [attempt["outcome"] for attempt in record["attempts"]] == ["joined"]
    assert record["attempts"][0]["livekit_dispatch_id"].startswith("AD_")
    assert record["attempts"][0]["tries"] == 1
    accepted = [line for line in stack.log("agent").splitlines() if answer["room_name"] in line]
    line = next(line for line in accepted if "job accepted" in line)
    for field in ("container=", "client_id=", "request_type=", "participant_count=", "decision="):
        assert field in line
    assert "reason=claimed" in line
    end_rooms(stack, answer["room_name"])
    caller.wait_for_state(answer["dispatch_id"], "ended", within_s=10)


def _post_at_once(stack: RunningStack, count: int) -> list[tuple[float, str]]:
    """Each request's answer time (s) and room."""
    program = [sys.executable, str(Path(__file__).with_name("burst.py"))]
    ran = subprocess.run(
        [*program, stack.web_url + ENDPOINT, stack.api_key, str(count)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answers = json.loads(ran.stdout)
    assert [status for _, status, _ in answers] == [200] * count
    return [(took_s, room) for took_s, _, room in answers]


def test_twenty_sessions_at_once_have_exactly_one_agent_each_within_five_seconds(
    stack: RunningStack,
) -> None:
    started = time.monotonic()
    rooms = [room for _, room in _post_at_once(stack, BURST)]

    def all_there() -> dict[str, list[str]] | None:
        agents = active_agents(stack, *rooms)
        return agents if all(agents.values()) else None

    agents = wait_for("an agent in every room", all_there, within_s=15)
    took_s = time.monotonic() - started
    assert [len(identities) for identities in agents.values()] == [1] * BURST
    assert took_s < 5
    # ... and it stays one: nothing late comes after it.
    settled = time.monotonic() + 2
    while time.monotonic() < settled:
        assert all(len(found) == 1 for found in active_agents(stack, *rooms).values())
    end_rooms(stack, *rooms)


def test_an_agent_name_that_nobody_serves_ends_as_failed_with_the_true_reason(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post(room_config={"agents": [{"agent_name": "agent-that-is-not-there"}]})
    record = caller.wait_for_state(answer["dispatch_id"], "waiting", "failed", within_s=10)
    assert record["failure_reason"] == "no_agent_online"
    record = caller.wait_for_state(answer["dispatch_id"], "failed", within_s=25)
    assert record["failure_reason"] == "no_agent_online"
    assert "start one" in record["failure_message"]
    ended_ms = record["timeline"][-1]["at_ms"]
    assert ended_ms <= record["deadline_at_ms"]
    assert active_agents(stack, answer["room_name"]) == {answer["room_name"]: []}


def test_counters_in_redis_grow_with_every_session(stack: RunningStack, caller: Caller) -> None:
    with redis.Redis.from_url(stack.redis_url, decode_responses=True) as client:

        def counters() -> dict[str, int]:
            keys = sorted(client.scan_iter("usher:metrics:*"))
            found: dict[str, int] = {}
            for key in keys:
                kind = key.split(":")[2]
                for name, value in client.hgetall(key).items():
                    found[f"{kind}.{name}"] = found.get(f"{kind}.{name}", 0) + int(value)
            return found

        before = counters()
        answer = caller.post()
        record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=5)
        after = counters()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    expected = {
        "dispatch.dispatches": 1,
        "dispatch.attempts": 1,
        "dispatch.joined": 1,
        "dispatch.time_to_join_ms_count": 1,
        "dispatch.time_to_join_ms_sum": record["time_to_join_ms"],
        "agent.requests": 1,
        "agent.accepts": 1,
        "agent.accepts:claimed": 1,
        "agent.joins": 1,
    }
    assert {name: grown.get(name) for name in expected} == expected
    end_rooms(stack, answer["room_name"])


def _idle() -> bool:
    """True when the last burst's agents have gone and been replaced: the processors are free."""
    return psutil.cpu_percent(interval=0.5) < 25


def _p99_s(stack: RunningStack, bursts: int) -> float:
    """The 99th percentile of the answer times of so many bursts, each on an idle machine."""
    times_s: list[float] = []
    for _ in range(bursts):
        wait_for("an idle machine", lambda: _idle() or None, within_s=30)
        answers = _post_at_once(stack, BURST)
        times_s += [took_s for took_s, _ in answers]
        end_rooms(stack, *(room for _, room in answers))
    return sorted(times_s)[int(len(times_s) * 0.99) - 1]


@pytest.mark.timeout(300)
def test_twenty_posts_at_once_are_answered_within_50_ms_at_the_99th_percentile(
    stack: RunningStack,
) -> None:
    # Up to three times: what else runs on a machine of two cores only ever adds to a time.
    p99s_s: list[float] = []
    while len(p99s_s) < 3 and min(p99s_s, default=1.0) >= 0.05:
        p99s_s.append(_p99_s(stack, bursts=5))
    assert min(p99s_s) < 0.05, f"p99 of each try (s): {p99s_s}"
