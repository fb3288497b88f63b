"""The shortest time in which forty agents can join: direct calls at the best pace."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from bench.contenders import DIRECT, USHER
from bench.procfiles import Kind
from bench.sessions import Session
from bench.size import TARGET_BURST, Size
from bench.testbed import Testbed
from bench.units import Unit, rotated

NAME: Final = "pacing"
_WITHIN_S: Final = 30.0


def units(size: Size) -> list[Unit]:
    """Usher, and direct calls: all at once, so many in flight, or one every so many ms."""
    paces: dict[str, dict[str, Any]] = {"usher": {"usher": True}, "all at once": {}}
    paces |= {f"{window} in flight": {"window": window} for window in size.pacing_windows}
    paces |= {f"one in {ms} ms": {"spacing_ms": ms} for ms in size.pacing_spacings_ms}
    return [
        Unit(
            measure=NAME,
            kind=Kind.SLOTS,
            key=f"{number}/{pace}",
            contender="usher" if "usher" in paces[pace] else "direct",
            takes_s=16,
            arguments=paces[pace],
        )
        for number in range(size.pacing_rounds)
        for pace in rotated(list(paces), number)
    ]


async def run(bed: Testbed, unit: Unit) -> dict[str, Any]:
    """One burst at one pace. Times are from the first request."""
    contender = USHER if "usher" in unit.arguments else DIRECT
    busy = await bed.settle()
    rooms = bed.rooms(contender, TARGET_BURST)
    await bed.caller(contender)
    t0_ms = time.time() * 1000
    if "window" in unit.arguments:
        sessions = await _in_flight(bed, rooms, unit.arguments["window"])
    elif "spacing_ms" in unit.arguments:
        sessions = await _spaced(bed, rooms, unit.arguments["spacing_ms"] / 1000)
    else:
        sessions = await bed.ask(contender, rooms)
    await bed.log.wait_for_agents(rooms, within_s=_WITHIN_S, quiet_s=10)
    await asyncio.sleep(1)
    await bed.see(contender, sessions)
    await bed.end(rooms, within_s=15)
    last_ms = max((s.active_ms for s in sessions if s.active_ms is not None), default=t0_ms)
    return {
        "busy_percent": busy,
        "exactly_one": sum(session.agents == 1 for session in sessions),
        "last_s": round((last_ms - t0_ms) / 1000, 3),
    }


async def _spaced(bed: Testbed, rooms: list[str], pause_s: float) -> list[Session]:
    asked = []
    for room in rooms:
        asked.append(asyncio.create_task(bed.ask(DIRECT, [room])))
        await asyncio.sleep(pause_s)
    return [session for [session] in await asyncio.gather(*asked)]


async def _in_flight(bed: Testbed, rooms: list[str], window: int) -> list[Session]:
    free = asyncio.Semaphore(window)

    async def one(room: str) -> Session:
        async with free:
            [session] = await bed.ask(DIRECT, [room])
            await bed.log.wait_for_agents([room], within_s=10)
            return session

    return list(await asyncio.gather(*(one(room) for room in rooms)))
