"""The cost of a session beside none, ten, a hundred or a thousand live ones.

The live ones are records, not agents: LiveKit is the fake one, which lists an agent in every room,
so Usher takes each session for joined; one process renews them all, every 0.8 s, as their agents
would (`bench/pretended.py`). A thousand real agents are more than one machine has room for. The
cost of the agents' own processes is left out, so `pretended` is shown apart.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, Final

from bench.contenders import CONTENDERS, USHER, USHERS
from bench.procfiles import Kind
from bench.size import Size
from bench.testbed import Testbed
from bench.units import Unit
from dispatcher.ledger import keys

NAME: Final = "live"
_PER_S: Final = 2.0
_JOINED_WITHIN_S: Final = 120.0


def units(size: Size) -> list[Unit]:
    """Each number of live sessions, the smallest first; (g) beside fewest and most of them."""
    levels = sorted(size.live_levels)
    return [
        Unit(
            measure=NAME,
            kind=Kind.LIVE,
            key=f"{level}/{name}",
            contender=name,
            takes_s=size.live_idle_s + size.live_sessions / _PER_S + level / 50 + 5,
            arguments={
                "live": level,
                "sessions": size.live_sessions,
                "idle_s": size.live_idle_s,
            },
        )
        for level in levels
        for name in USHERS
        if name == USHER.name or level in (levels[0], levels[-1])
    ]


async def run(bed: Testbed, unit: Unit) -> dict[str, Any]:
    """Bring so many up, see what they cost by themselves, then what one more costs."""
    contender = CONTENDERS[unit.contender]
    await bed.fake("joins", "on")
    caller = await bed.caller(USHER)
    missing = max(0, unit.arguments["live"] - _live(bed))
    if missing:
        [prefix] = bed.rooms(USHER, 1)
        # Few at a time: their first renewals come as soon as they are in the list.
        for start in range(0, missing, 50):
            asked = await caller.loop(
                loop_s=60,
                connections=4,
                prefix=f"{prefix}-{start}-",
                count=min(50, missing - start),
            )
            _have_renewed(bed, (dispatch_id for _, dispatch_id in asked["rooms"]))
            await asyncio.sleep(0.5)
    await _wait_until_live(bed, unit.arguments["live"])
    await asyncio.sleep(3)
    idle_s = unit.arguments["idle_s"]
    before, commands_before = bed.cpu_s(), _commands(bed)
    await asyncio.sleep(idle_s)
    after, commands_after = bed.cpu_s(), _commands(bed)
    idle = {name: (after[name] - before[name]) / idle_s for name in after}
    loop = asyncio.get_running_loop()
    sessions = unit.arguments["sessions"]
    before, started = bed.cpu_s(), loop.time()
    answered = []
    for number, room in enumerate(bed.rooms(contender, sessions)):
        [session] = await bed.ask(contender, [room])
        answered.append(session)
        _have_renewed(bed, [session.dispatch_id])
        await asyncio.sleep(max(0.0, started + (number + 1) / _PER_S - loop.time()))
    await asyncio.sleep(1)
    lasted_s = loop.time() - started
    after = bed.cpu_s()
    lags = []
    for session in answered:
        record = await bed.record(contender, session.dispatch_id)
        joined = [e["at_ms"] for e in record["timeline"] if e["event"] == "joined"]
        lags += [at_ms - session.t0_ms for at_ms in joined[:1]]
    return {
        "live": _live(bed) - sessions,
        "idle_cpu_ms_per_s": {name: round(rate * 1000, 2) for name, rate in idle.items()},
        "idle_redis_commands_per_s": round((commands_after - commands_before) / idle_s, 1),
        "cpu_ms_per_session": {
            name: round((after[name] - before[name] - idle[name] * lasted_s) / sessions * 1000, 2)
            for name in after
        },
        "request_to_joined_ms": [round(lag, 1) for lag in lags],
        "not_joined": sessions - len(lags),
    }


def _have_renewed(bed: Testbed, ids: Iterable[str]) -> None:
    with open(bed.plan.environ["USHER_BENCH_RENEW"], "a") as file:
        file.writelines(f"{dispatch_id}\n" for dispatch_id in ids)


def _live(bed: Testbed) -> int:
    with bed.redis() as client:
        count: Any = client.zcard(keys.LEASES)
        return int(count)


def _commands(bed: Testbed) -> int:
    with bed.redis() as client:
        stats: Any = client.info("commandstats")
        return sum(int(one["calls"]) for one in stats.values())


async def _wait_until_live(bed: Testbed, count: int) -> None:
    loop = asyncio.get_running_loop()
    until = loop.time() + _JOINED_WITHIN_S
    while _live(bed) < count and loop.time() < until:
        await asyncio.sleep(0.2)
