"""What does a caller see while Redis or LiveKit is away, and what becomes of its session?"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
import pytest
from livekit import rtc

from tests.support.stacks import RunningStack, running_stack

from .session import (
    ENDPOINT,
    Caller,
    active_agents,
    delete_room,
    end_rooms,
    make_room,
    post_at_once,
    wait_for,
    wait_ready,
)

pytestmark = pytest.mark.outage

# For a machine on which LiveKit and the agent server take long to come back.
DEADLINE_S = 40


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack of this module's own: its parts are stopped and hung here."""
    environ = {"USHER_DEADLINE_S": str(DEADLINE_S), "USHER_AGENT_EXECUTOR": "thread"}
    with running_stack(tmp_path_factory.mktemp("outages"), environ=environ) as running:
        yield running


@pytest.fixture(scope="module")
def caller(stack: RunningStack) -> Iterator[Caller]:
    caller = Caller(stack)
    with caller.http:
        yield caller


@pytest.fixture(autouse=True)
def _all_ready(caller: Caller) -> Iterator[None]:
    """Every test begins with everything there, whatever the one before it has stopped."""
    yield
    wait_ready(caller)


@contextmanager
def stopped(stack: RunningStack, name: str) -> Iterator[None]:
    group = "servers" if name in ("redis", "livekit") else "usher"
    assert "stopped" in stack.supervisorctl("stop", f"{group}:{name}")
    try:
        yield
    finally:
        assert "started" in stack.supervisorctl("start", f"{group}:{name}")


@contextmanager
def hung(stack: RunningStack, name: str) -> Iterator[None]:
    pid = stack.pids(name)[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def timed_post(caller: Caller, **body: str) -> tuple[httpx.Response, float]:
    started = time.perf_counter()
    response = caller.http.post(ENDPOINT, json=body)
    return response, time.perf_counter() - started


Fault = Callable[[RunningStack, str], AbstractContextManager[None]]


@pytest.mark.parametrize("how", [stopped, hung])
async def test_without_redis_livekit_itself_brings_the_agent_and_the_ledger_gets_it_later(
    stack: RunningStack, caller: Caller, how: Fault
) -> None:
    began_s = time.time()
    with how(stack, "redis"):
        response, took_s = await asyncio.to_thread(timed_post, caller)
        assert response.status_code == 200
        assert took_s < 1
        answer = response.json()
        assert answer["status"] == "delegated"
        ready = caller.http.get("/readyz")
        assert (ready.status_code, ready.json()["not_ready"]) == (200, ["redis"])
        assert caller.http.get("/healthz").status_code == 200
        assert caller.http.get(f"{ENDPOINT}/{answer['dispatch_id']}").status_code == 503
        person = rtc.Room()
        await person.connect(answer["server_url"], answer["participant_token"])
        room = answer["room_name"]
        await asyncio.to_thread(
            wait_for,
            "an agent without Redis",
            lambda: active_agents(stack, room)[room] or None,
            within_s=30,
        )
        came_s = time.time()
    record = await asyncio.to_thread(joined_when_back, caller, answer["dispatch_id"])
    assert record["generation"] == 1
    assert {"restored", "joined"} <= {event["event"] for event in record["timeline"]}
    # By LiveKit's clock, not since Redis was back.
    assert record["joined_at_ms"] <= came_s * 1000
    assert 0 < record["time_to_join_ms"] <= (came_s - began_s) * 1000 + 1000
    for _ in range(20):
        assert len((await asyncio.to_thread(active_agents, stack, room))[room]) == 1
    await person.disconnect()


def joined_when_back(caller: Caller, dispatch_id: str) -> dict[str, Any]:
    """The record of a dispatch that the ledger learns of only now."""

    def look() -> dict[str, Any] | None:
        response = caller.http.get(f"{ENDPOINT}/{dispatch_id}")
        found: dict[str, Any] = response.json()
        return found if response.status_code == 200 and found["state"] == "joined" else None

    return wait_for(f"{dispatch_id} joined", look, within_s=DEADLINE_S + 10)


async def test_a_delegated_session_that_is_over_before_redis_is_back_is_sent_no_second_agent(
    stack: RunningStack, caller: Caller
) -> None:
    with stopped(stack, "redis"):
        answer = (await asyncio.to_thread(timed_post, caller))[0].json()
        assert answer["status"] == "delegated"
        person = rtc.Room()
        await person.connect(answer["server_url"], answer["participant_token"])
        room = answer["room_name"]
        (agent,) = await asyncio.to_thread(
            wait_for,
            "an agent without Redis",
            lambda: active_agents(stack, room)[room] or None,
            within_s=30,
        )
        await person.disconnect()
        await asyncio.to_thread(delete_room, stack, room)

    def over() -> Any:
        response = caller.http.get(f"{ENDPOINT}/{answer['dispatch_id']}")
        known = response.status_code == 200 and response.json()
        return known if known and known["state"] in ("ended", "cancelled", "failed") else None

    record = await asyncio.to_thread(wait_for, "the end", over, within_s=30)
    assert (record["state"], record["generation"]) == ("ended", 1)
    assert record["agent_identity"] == agent


def test_a_delegated_session_in_a_room_that_exists_gets_its_agent_when_redis_is_back(
    stack: RunningStack, caller: Caller
) -> None:
    room = "made-before"
    make_room(stack, room)  # LiveKit ignores the agents of a token for such a room
    with stopped(stack, "redis"):
        answer = caller.post(room_name=room)
        assert answer["status"] == "delegated"
    joined_when_back(caller, answer["dispatch_id"])
    assert len(active_agents(stack, room)[room]) == 1
    end_rooms(stack, room)


def test_twenty_posts_at_once_with_redis_hung_are_each_answered_within_a_second(
    stack: RunningStack, caller: Caller
) -> None:
    room = "hung-for-all"
    with hung(stack, "redis"):
        answers = [
            *post_at_once(stack, 20, room_name=room),
            *post_at_once(stack, 20, room_name=room),
        ]
    assert max(took_s for took_s, _ in answers) < 1
    # Each web process remembers its own; the ledger then has one for the room.
    ids = {answer["dispatch_id"] for _, answer in answers}
    records = [settled_when_back(caller, dispatch_id) for dispatch_id in ids]
    assert [r["state"] for r in records].count("joined") == 1
    assert {r["failure_reason"] for r in records if r["state"] != "joined"} <= {"superseded"}
    assert len(active_agents(stack, room)[room]) == 1
    end_rooms(stack, room)


def settled_when_back(caller: Caller, dispatch_id: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        response = caller.http.get(f"{ENDPOINT}/{dispatch_id}")
        found: dict[str, Any] = response.json()
        settled = response.status_code == 200 and found["state"] in ("joined", "cancelled")
        return found if settled else None

    return wait_for(f"{dispatch_id} settled", look, within_s=DEADLINE_S + 10)


@pytest.mark.parametrize("how", [stopped, hung])
def test_without_livekit_a_post_is_answered_within_a_second(
    stack: RunningStack, caller: Caller, how: Fault
) -> None:
    with how(stack, "livekit"):
        response, took_s = timed_post(caller)
        assert response.status_code == 200
        assert took_s < 1


def test_a_session_asked_for_while_livekit_is_away_gets_its_agent_when_it_is_back(
    stack: RunningStack, caller: Caller
) -> None:
    with stopped(stack, "livekit"):
        answer = caller.post()
        wait_for(
            "a first failed try",
            lambda: "try 1" in str(caller.record(answer["dispatch_id"])["attempts"]) or None,
            within_s=30,
        )
    record = caller.wait_for_state(
        answer["dispatch_id"], "joined", "failed", within_s=DEADLINE_S + 10
    )
    assert record["state"] == "joined", record
    errors = [error for attempt in record["attempts"] for error in attempt["errors"]]
    assert errors
    assert all("LiveKit" in error for error in errors)
    assert len(active_agents(stack, answer["room_name"])[answer["room_name"]]) == 1


@pytest.mark.long  # the deadline; test_secrets.py has a shorter one in `make test`
def test_livekit_away_for_good_ends_the_session_as_livekit_unreachable_before_its_deadline(
    stack: RunningStack, caller: Caller
) -> None:
    with stopped(stack, "livekit"):
        answer = caller.post()
        record = caller.wait_for_state(answer["dispatch_id"], "failed", within_s=DEADLINE_S + 10)
    assert record["failure_reason"] == "livekit_unreachable"
    assert record["timeline"][-1]["at_ms"] <= record["deadline_at_ms"]
    first = record["attempts"][0]
    assert (first["tries"], len(first["errors"])) == (3, 3)


def test_a_dispatch_worker_that_is_away_costs_time_and_nothing_else(
    stack: RunningStack, caller: Caller
) -> None:
    with stopped(stack, "dispatch"):
        answer = caller.post()
    record = caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
    assert record["generation"] == 1
