"""Does a tenant notice that another one asks for far too much, or that its LiveKit is sick?

Its answers and joins are timed in turn with the other one quiet and busy, in one run, so that
whatever else the machine does meets both alike. The other's rates are fixed, and far over its
limits: how many connections a web has is for the proxy before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.stats import Ratio, median, ratio
from devstack import PROJECT_ROOT
from tests.acceptance.session import ENDPOINT, Caller, wait_for
from tests.faults.campaign.journal import read_journal
from tests.faults.gateway import Garbage, spoil
from tests.faults.neighbour import KEY, Excess, command

from .two import Tenant, two_tenants

AT_MOST = 1.2
ROUNDS = 2
# Where the machine was so busy that two do not tell: what else it does only ever adds to a time.
MAX_ROUNDS = 5
JOINS = 4
ANSWERS = 24
LIMITS = "max_sessions = 20\nrequests_per_minute = 300"
# Turns a second; each of a flood and of a loop is two requests. Sixteen times the limit.
FLOOD_PER_S, REDISPATCH_PER_S = 40.0, 40.0
OVERSIZE_PER_S = 4.0
SICK_PER_S = 4.0
SICK_FOR_S = 60.0
OVER = {"ended", "failed", "cancelled"}


@pytest.fixture(scope="module")
def neighbours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tenant, Tenant]]:
    """acme with limits, its LiveKit behind a gateway, and globex."""
    run_dir = tmp_path_factory.mktemp("by")
    with two_tenants(run_dir, acme_more=LIMITS, gateway=True) as both:
        # What is acme's own, on a real deployment on machines of its own.
        for program in ("livekit", "gateway", "agent"):
            for pid in both[0].stack.pids(program):
                _run_behind_everything(pid)
        yield both


@dataclass(kw_only=True)
class Times:
    """What a tenant has waited for, in ms."""

    answers: list[float] = field(default_factory=list)
    joins: list[float] = field(default_factory=list)

    def add(self, other: Times) -> None:
        self.answers += other.answers
        self.joins += other.joins


def timed(caller: Caller) -> Times:
    """Some sessions, and people who ask for the same room again."""
    times = Times()
    for _ in range(JOINS):
        room = _ask(caller, times)
        record = caller.wait_for_state(room["dispatch_id"], "joined", "failed", within_s=30)
        assert record["state"] == "joined", (record["failure_message"], record["timeline"])
        times.joins.append(record["time_to_join_ms"])
        for _ in range(ANSWERS // JOINS):
            assert _ask(caller, times, room["room_name"])["dispatch_id"] == room["dispatch_id"]
        caller.http.delete(f"{ENDPOINT}/{room['dispatch_id']}")
    return times


def _ask(caller: Caller, times: Times, room_name: str = "") -> dict[str, str]:
    began = time.perf_counter()
    answer = caller.post(**({"room_name": room_name} if room_name else {}))
    times.answers.append((time.perf_counter() - began) * 1000)
    return answer


@contextlib.contextmanager
def asking(tenant: Tenant, excess: Excess, per_s: float, journal: Path) -> Iterator[None]:
    """That tenant asks too much from its first answer until the end of the block."""
    journal.unlink(missing_ok=True)
    words = command(excess, tenant.stack.web_url, journal=journal, per_s=per_s)
    environ = {**os.environ, KEY: tenant.stack.api_key}
    running = subprocess.Popen(words, cwd=PROJECT_ROOT, env=environ, start_new_session=True)
    _run_behind_everything(running.pid)
    try:
        wait_for("its first answer", lambda: read_journal(journal) or None, within_s=20)
        yield
    finally:
        running.terminate()
        running.wait(timeout=20)
    with (caller := tenant.caller()).http:
        wait_for("the end of all that it asked for", lambda: _all_over(caller), within_s=40)


def _run_behind_everything(pid: int) -> None:
    """Give that process what the others leave: on a real deployment it is another machine.

    Where Linux groups processes by session, `nice` compares those of one group alone, and the
    group has a value of its own.
    """
    os.setpriority(os.PRIO_PROCESS, pid, 19)
    autogroup = Path(f"/proc/{pid}/autogroup")
    if autogroup.exists():
        autogroup.write_text("19")


def _all_over(caller: Caller) -> bool | None:
    answer = caller.http.get(ENDPOINT, params={"limit": 100})
    return {one["state"] for one in answer.json()["dispatches"]} <= OVER or None


@contextlib.contextmanager
def sick(tenant: Tenant, garbage: Garbage, journal: Path) -> Iterator[None]:
    """Its LiveKit answers so while it asks for sessions; it is well again at the end."""
    arguments = (tenant.gateway_port, garbage)
    spoiling = threading.Thread(
        target=lambda: asyncio.run(spoil(*arguments, for_s=SICK_FOR_S, carried_out=False))
    )
    with asking(tenant, Excess.REDISPATCH, SICK_PER_S, journal):
        spoiling.start()
        try:
            yield
        finally:
            # The next order takes the place of the one before, and is over at once.
            asyncio.run(spoil(*arguments, for_s=0.001, carried_out=False))
            spoiling.join()


Noise = Callable[[Tenant, Path], AbstractContextManager[None]]


def _too_much(excess: Excess, per_s: float) -> Noise:
    return lambda tenant, journal: asking(tenant, excess, per_s, journal)


def _with_a_sick_livekit(garbage: Garbage) -> Noise:
    return lambda tenant, journal: sick(tenant, garbage, journal)


NOISES: dict[str, Noise] = {
    "floods": _too_much(Excess.FLOOD, FLOOD_PER_S),
    "redispatches": _too_much(Excess.REDISPATCH, REDISPATCH_PER_S),
    "oversize bodies": _too_much(Excess.OVERSIZE, OVERSIZE_PER_S),
    "LiveKit hangs": _with_a_sick_livekit(Garbage.HANGS),
    "LiveKit answers garbage": _with_a_sick_livekit(Garbage.EMPTY_LIST),
}


def ratios(quiet: Times, noisy: Times) -> dict[str, Ratio]:
    """How many times as long, of the medians."""
    return {
        "answer": ratio(noisy.answers, quiet.answers),
        "join": ratio(noisy.joins, quiet.joins),
    }


def told(name: str, quiet: Times, noisy: Times) -> str:
    """The medians of all rounds so far."""
    found = ratios(quiet, noisy)
    return (
        f"{name}: answer {median(quiet.answers):.1f} -> {median(noisy.answers):.1f} ms, "
        f"{found['answer']}; join {median(quiet.joins):.0f} -> {median(noisy.joins):.0f} ms, "
        f"{found['join']}"
    )


@pytest.mark.long  # a measurement: it wants a machine of its own
@pytest.mark.timeout(400)
def test_a_tenant_that_asks_too_much_or_whose_livekit_is_sick_does_not_slow_another(
    neighbours: tuple[Tenant, Tenant], tmp_path: Path
) -> None:
    acme, globex = neighbours
    beside: defaultdict[str, tuple[Times, Times]] = defaultdict(lambda: (Times(), Times()))
    left = dict(NOISES)
    with (caller := globex.caller()).http:
        timed(caller)  # what is loaded once
        for number in range(1, MAX_ROUNDS + 1):
            for name, noise in left.items():
                quiet, noisy = beside[name]
                quiet.add(timed(caller))
                with noise(acme, tmp_path / "neighbour.jsonl"):
                    noisy.add(timed(caller))
                print(told(name, quiet, noisy), flush=True)
            if number >= ROUNDS:
                left = {name: NOISES[name] for name in left if _worst(*beside[name]) > AT_MOST}
            if not left:
                break

    slowed = [told(name, *times) for name, times in beside.items() if _worst(*times) > AT_MOST]
    assert not slowed


def _worst(quiet: Times, noisy: Times) -> float:
    return max(found.value for found in ratios(quiet, noisy).values())
