"""Does Redis killed or hung lose nothing that was promised, and does all go on by itself?

Rows 7, 8 (everysec) and 9 (hung) of docs/faults.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from livekit import rtc

from tests.support.stacks import RunningStack, running_stack

from .stacks import (
    ENDPOINT,
    Caller,
    end_room,
    frozen,
    kill,
    one_agent,
    redis_of,
    wait_for,
    wait_ready,
)

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

NOBODY = "agent-that-is-not-there"
DEADLINE_S = 10
ACCEPTED = 50
HUNG_S = 60
RESUMES_WITHIN_S = 30
PROCESSES = ("web", "dispatch", "verify", "beat", "agent")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack of this module's own: its Redis is killed and hung here."""
    environ = {
        "USHER_AGENT_NAMES": f"session-agent-rag,{NOBODY}",
        "USHER_DEADLINE_S": str(DEADLINE_S),
        "USHER_REDIS_APPENDFSYNC": "always",
    }
    with running_stack(tmp_path_factory.mktemp("redis"), environ=environ) as running:
        yield running


@pytest.fixture(scope="module")
def caller(stack: RunningStack) -> Iterator[Caller]:
    caller = Caller(stack)
    with caller.http:
        yield caller


def pids(stack: RunningStack) -> dict[str, int]:
    return {name: stack.pids(name)[0] for name in PROCESSES}


class Askers:
    """Eight callers who ask for sessions all the time, whatever they are answered."""

    def __init__(self, stack: RunningStack) -> None:
        self._stack = stack
        self.accepted: list[str] = []
        self.without_redis = 0
        self._enough = threading.Event()

    @contextlib.contextmanager
    def asking(self) -> Iterator[None]:
        with ThreadPoolExecutor(8) as pool:
            asked = [pool.submit(self._ask) for _ in range(8)]
            try:
                yield
            finally:
                self._enough.set()
        for each in asked:
            each.result()

    def wait_for(self, accepted: int) -> None:
        """Return when so many have been accepted."""
        wait_for(
            f"{accepted} accepted sessions",
            lambda: len(self.accepted) >= accepted or None,
            within_s=20,
        )

    def _ask(self) -> None:
        caller = Caller(self._stack)
        with caller.http:
            while not self._enough.is_set():
                body = {"room_config": {"agents": [{"agent_name": NOBODY}]}}
                response = caller.http.post(ENDPOINT, json=body)
                if response.status_code == 200:
                    answer = response.json()
                    self.accepted.append(answer["dispatch_id"])
                    self.without_redis += answer["status"] == "delegated"
                else:
                    assert response.status_code == 503, response.text
                    self.without_redis += 1
                    time.sleep(0.05)


@pytest.mark.parametrize("appendfsync", ["always", "everysec"])
def test_of_what_was_accepted_while_redis_was_killed_nothing_is_lost(
    stack: RunningStack, caller: Caller, appendfsync: str
) -> None:
    with redis_of(stack) as client:
        client.config_set("appendfsync", appendfsync)
    before = pids(stack)
    askers = Askers(stack)
    with askers.asking():
        askers.wait_for(ACCEPTED // 2)
        kill(stack.pids("redis")[0])
        askers.wait_for(len(askers.accepted) + ACCEPTED // 2)
    assert askers.without_redis
    # The records, then what became of them; a few of the many are enough for that. What was
    # accepted without Redis is written within a second or two of its return.
    for each in askers.accepted:
        wait_for(
            f"the record of {each}",
            lambda path=f"{ENDPOINT}/{each}": caller.http.get(path).status_code == 200 or None,
            within_s=10,
        )
    for dispatch_id in askers.accepted[:: len(askers.accepted) // 10]:
        record = caller.wait_for_state(dispatch_id, "failed", within_s=DEADLINE_S + 5)
        assert record["failure_reason"] == "no_agent_online"
        assert record["timeline"][-1]["at_ms"] <= record["deadline_at_ms"]
    joins_and_ends(stack, caller)
    assert pids(stack) == before
    wait_ready(caller)


def joins_and_ends(stack: RunningStack, caller: Caller) -> None:
    """A session goes all its way."""
    answer = caller.post()
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=DEADLINE_S)
    one_agent(stack, answer["room_name"], for_s=1)
    asyncio.run(end_room(stack, answer["room_name"]))


def timed(caller: Caller, method: str, path: str, **how: Any) -> tuple[httpx.Response, float]:
    started = time.perf_counter()
    response = caller.http.request(method, path, **how)
    return response, time.perf_counter() - started


async def test_a_redis_that_hangs_for_a_minute_holds_nobody_up_and_all_goes_on_by_itself(
    stack: RunningStack, caller: Caller
) -> None:
    answer = await asyncio.to_thread(caller.post)
    room = rtc.Room()
    await room.connect(answer["server_url"], answer["participant_token"])
    try:
        await asyncio.to_thread(
            caller.wait_for_state, answer["dispatch_id"], "joined", within_s=DEADLINE_S
        )
        await asyncio.sleep(1.5)  # one renewal that has seen the person
        before = pids(stack)
        slowest_s = await asyncio.to_thread(ask_while_redis_hangs, stack, caller, answer)
        assert slowest_s < 1
        went_on = time.monotonic()
        await asyncio.to_thread(resumes, stack, caller)
        resumed_s = time.monotonic() - went_on
        assert pids(stack) == before
        # The session of before has kept its one agent.
        identity = await asyncio.to_thread(one_agent, stack, answer["room_name"], for_s=3)
        record = await asyncio.to_thread(caller.record, answer["dispatch_id"])
        assert (record["state"], record["agent_identity"]) == ("joined", identity)
        assert resumed_s < RESUMES_WITHIN_S
    finally:
        await room.disconnect()
    await end_room(stack, answer["room_name"])


def ask_while_redis_hangs(stack: RunningStack, caller: Caller, answer: dict[str, Any]) -> float:
    """Every kind of request for as long as it hangs; returns the longest answer time (s)."""
    slowest_s = 0.0
    with frozen(stack.pids("redis")[0]):
        until = time.monotonic() + HUNG_S
        while time.monotonic() < until:
            for method, path in (
                ("POST", ENDPOINT),
                ("GET", f"{ENDPOINT}/{answer['dispatch_id']}"),
                ("GET", "/readyz"),
                ("GET", "/healthz"),
            ):
                body = {"json": {}} if method == "POST" else {}
                _, took_s = timed(caller, method, path, **body)
                slowest_s = max(slowest_s, took_s)
            time.sleep(0.2)
    return slowest_s


def resumes(stack: RunningStack, caller: Caller) -> None:
    """Return when a new session has its agent; it is ended then."""

    def look() -> bool | None:
        response = caller.http.post(ENDPOINT, json={})
        if response.status_code != 200:
            return None
        states = ("joined", "failed")
        dispatch_id = response.json()["dispatch_id"]
        record = caller.wait_for_state(dispatch_id, *states, within_s=DEADLINE_S + 5)
        asyncio.run(end_room(stack, record["room_name"]))
        return record["state"] == "joined" or None

    wait_for("a session after the outage", look, within_s=RESUMES_WITHIN_S + DEADLINE_S)
