"""A steady stream of sessions, slow or fast: its joins and its costs."""

from __future__ import annotations

import asyncio
import contextlib
import random
from typing import Any, Final

from bench.contenders import CONTENDERS, USHERS
from bench.procfiles import Kind
from bench.sessions import Session
from bench.size import FAST_PER_S, Size
from bench.testbed import Testbed
from bench.units import Unit

NAME: Final = "stream"
LIFE_S: Final = 5.0
FAST_LIFE_S: Final = 3.0  # so that none waits for a slot


def units(size: Size) -> list[Unit]:
    """One stretch of each contender, of which Usher's is the longest, and fast ones of Usher's."""
    wanted = [
        (1, LIFE_S, name, size.stream_s if name == "usher" else size.stream_others_s)
        for name in CONTENDERS
    ]
    wanted += [(FAST_PER_S, FAST_LIFE_S, name, size.stream_fast_s) for name in USHERS]
    return [
        Unit(
            measure=NAME,
            kind=Kind.SLOTS,
            key=f"{per_s}/{name}",
            contender=name,
            takes_s=lasts_s + life_s + 10,
            arguments={"lasts_s": lasts_s, "per_s": per_s, "life_s": life_s},
        )
        for per_s, life_s, name, lasts_s in wanted
    ]


async def run(bed: Testbed, unit: Unit) -> dict[str, Any]:
    """So many sessions a second on average, at moments by chance; each lives for some seconds."""
    contender = CONTENDERS[unit.contender]
    chance = random.Random(unit.key)
    busy = await bed.settle()
    await bed.caller(contender)
    loop = asyncio.get_running_loop()
    idle = await _cpu_per_s(bed, 5.0)
    before, started = bed.cpu_s(), loop.time()
    until = started + unit.arguments["lasts_s"]
    tasks: list[asyncio.Task[Session]] = []

    async def one(room: str) -> Session:
        [session] = await bed.ask(contender, [room])
        await bed.log.wait_for_agents([room], within_s=25)
        await asyncio.sleep(unit.arguments["life_s"])
        with contextlib.suppress(Exception):
            await bed.see(contender, [session])
        await bed.end([room], within_s=0)
        return session

    due = started
    while due < until:
        [room] = bed.rooms(contender, 1)
        tasks.append(asyncio.create_task(one(room)))
        due += chance.expovariate(unit.arguments["per_s"])
        await asyncio.sleep(max(0.0, due - loop.time()))
    sessions = await asyncio.gather(*tasks)
    await asyncio.sleep(2)
    lasted_s = loop.time() - started
    used = bed.cpu_s()
    return {
        "busy_percent": busy,
        "lasted_s": round(lasted_s, 1),
        "idle_cpu_ms_per_s": {name: round(rate * 1000, 2) for name, rate in idle.items()},
        "cpu_ms_per_session": {
            name: round(
                (used[name] - before.get(name, 0.0) - idle.get(name, 0.0) * lasted_s)
                / len(sessions)
                * 1000,
                1,
            )
            for name in used
        },
        "sessions": [session.as_json() for session in sessions],
    }


async def _cpu_per_s(bed: Testbed, during_s: float) -> dict[str, float]:
    before = bed.cpu_s()
    await asyncio.sleep(during_s)
    return {name: (now - before.get(name, now)) / during_s for name, now in bed.cpu_s().items()}
