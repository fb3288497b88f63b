"""The draining of a backlog: its rate, order, losses and memory.

Dispatch only, no agents: LiveKit is the fake one (`bench/fake_livekit.py`), a pretended agent
server reports free slots, and no verification runs. Measured is the way from an accepted session to
`CreateDispatch`.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any, Final

from bench.contenders import USHER
from bench.measure.memory import memory_bytes
from bench.procfiles import Kind
from bench.size import Size
from bench.stats import percentile
from bench.testbed import Testbed
from bench.units import Unit
from dispatcher.ledger import keys

NAME: Final = "backlog"
_WORKERS: Final = ("dispatch", "verify", "beat")
_STALLED_S: Final = 30.0
_WORKED_OFF_WITHIN_S: Final = 180.0


def units(size: Size) -> list[Unit]:
    """Usher's alone."""
    count = size.backlog_sessions
    return [
        Unit(
            measure=NAME,
            kind=Kind.DISPATCH_ONLY,
            key=f"usher/{count}",
            contender="usher",
            takes_s=60 + count / 220,
            arguments={"sessions": count},
        )
    ]


async def run(bed: Testbed, unit: Unit) -> dict[str, Any]:
    """Let sessions pile up with the workers stopped, then start the dispatch worker and beat."""
    count = unit.arguments["sessions"]
    await bed.fake("joins", "off")
    await _wait_until_worked_off(bed)
    await bed.stop(*_WORKERS)
    await bed.fake("forget")
    caller = await bed.caller(USHER)
    [prefix] = bed.rooms(USHER, 1)
    before, web_before = memory_bytes(bed, "redis"), bed.rss_bytes("web")
    cpu_before = bed.cpu_s()
    asked = await caller.loop(loop_s=3600, connections=16, prefix=f"{prefix}-", count=count)
    await asyncio.sleep(2)  # the last messages are published
    cpu_loaded = bed.cpu_s()
    accepted: list[tuple[str, str]] = asked["rooms"]
    loaded, web_loaded = memory_bytes(bed, "redis"), bed.rss_bytes("web")
    drained = await _drain(bed, prefix, len(accepted))
    order: list[str] = [room for room in await bed.fake_json("order") if room.startswith(prefix)]
    states = _states(bed, [dispatch_id for _, dispatch_id in accepted])
    await bed.start("verify")
    rank = {room: number for number, (room, _) in enumerate(accepted)}
    seen = set(order)
    # Requests sent at once have no order among them; one with an answer that a web process kept
    # back for a moment is early by its answer, which costs no other request anything.
    places = [number - rank[room] for number, room in enumerate(dict.fromkeys(order))]
    return {
        "accepted": len(accepted),
        "errors": asked["errors"][:5],
        "loading_s": round(asked["lasted_s"], 1),
        "accepted_per_s": round(len(accepted) / asked["lasted_s"], 1),
        "web_cpu_ms_each": round(
            (cpu_loaded["web"] - cpu_before["web"]) / max(1, len(accepted)) * 1000, 3
        ),
        "redis_bytes_each": round((loaded - before) / max(1, len(accepted)), 1),
        "web_bytes_each": round((web_loaded - web_before) / max(1, len(accepted)), 1),
        "never_dispatched": sum(room not in seen for room, _ in accepted),
        "dispatched_twice": len(order) - len(seen),
        "late_p99": percentile([max(0, each) for each in places], 0.99) if places else None,
        "late_most": max(0, *places) if places else None,
        "early_most": max(0, *(-each for each in places)) if places else None,
        "states": states,
        **drained,
    }


async def _wait_until_worked_off(bed: Testbed) -> None:
    """Wait until the messages of what was measured before are gone."""
    until = time.monotonic() + _WORKED_OFF_WITHIN_S
    with bed.redis() as client:
        while client.llen(keys.DISPATCH_QUEUE) and time.monotonic() < until:
            await asyncio.sleep(0.5)
    await asyncio.sleep(3)


async def _drain(bed: Testbed, prefix: str, count: int) -> dict[str, Any]:
    started = time.monotonic()
    cpu_before = bed.cpu_s()
    await bed.start("dispatch", "beat")
    begun = 0.0
    progress: list[tuple[float, int]] = []
    peak_bytes = worker_bytes = 0
    while True:
        done = await bed.fake_json(f"count?prefix={prefix}")
        now = time.monotonic() - started
        begun = begun or (now if done else 0.0)
        progress.append((round(now, 2), done))
        peak_bytes = max(peak_bytes, memory_bytes(bed, "redis"))
        worker_bytes = max(worker_bytes, bed.rss_bytes("dispatch"))
        still = [at for at, so_far in progress if so_far == done]
        if done >= count or now - still[0] > _STALLED_S:
            break
        await asyncio.sleep(0.5)
    ended = progress[-1][0] if done >= count else still[0]
    cpu_after = bed.cpu_s()
    # A stopped program has no CPU time; a started one begins at nothing.
    worker_cpu_s = cpu_after["dispatch"] - cpu_before.get("dispatch", 0.0)
    lasted_s = max(ended - begun, 0.001)
    return {
        "drained_s": round(lasted_s, 1),
        "dispatches_per_s": round(done / lasted_s, 1),
        "worker_cpu_s": round(worker_cpu_s, 1),
        "dispatches_per_worker_core_s": round(done / worker_cpu_s, 1),
        "redis_cpu_s": round(cpu_after["redis"] - cpu_before["redis"], 1),
        "redis_peak_bytes": peak_bytes,
        "worker_peak_bytes": worker_bytes,
        "progress": progress[:: max(1, len(progress) // 200)],
    }


def _states(bed: Testbed, ids: list[str]) -> dict[str, int]:
    found: Counter[str] = Counter()
    with bed.redis() as client:
        for start in range(0, len(ids), 1000):
            pipe = client.pipeline(transaction=False)
            for dispatch_id in ids[start : start + 1000]:
                pipe.hget(keys.record(dispatch_id), "state")
            found.update(state or "no record" for state in pipe.execute())
    return dict(found)
