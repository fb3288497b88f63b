"""Bursts: of so many sessions at once, those with exactly one agent, and the last agent's time.

With the agent server's load as used slots, with the process executor, with livekit-agents' default
load report, the CPU's, and with two agent servers whose slots are as many as the sessions.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from bench.contenders import CONTENDERS
from bench.procfiles import SLOTS_OF_TWO, Kind
from bench.size import TARGET_BURST, Size
from bench.testbed import Testbed
from bench.units import Unit, rotated

NAME: Final = "burst"
# Without the CPU's load nothing takes longer than a contender's three tries; with it Usher's
# sessions have a deadline of 60 s here.
_WITHIN_S: Final = 62.0
# The last of a contender's three tries begins 13 s after the first.
_QUIET_S: Final = 15.0
# livekit-agents averages the CPU's load over 2.5 s, and takes nothing until that is over.
_LOAD_FALLS_S: Final = 3.0
# So long after the last agent it is seen whether a second one comes.
_SURPLUS_S: Final = 2.0
_FEW: Final = ("direct", "background", "usher", "usher-direct")
_AT_TWO: Final = ("direct", "usher", "usher-direct")


def units(size: Size) -> list[Unit]:
    """A burst of each size and contender in each round."""
    wanted = (
        (Kind.SLOTS, size.burst_rounds, size.burst_sizes, tuple(CONTENDERS)),
        (Kind.SLOTS, size.burst_target_rounds, (TARGET_BURST,), tuple(CONTENDERS)),
        (Kind.CPU, size.cpu_rounds, size.cpu_sizes, tuple(CONTENDERS)),
        (Kind.PROCESS, size.process_rounds, size.process_sizes, _FEW),
        (Kind.TWO, size.two_rounds, (2 * SLOTS_OF_TWO,), _AT_TWO),
    )
    return [
        Unit(
            measure=NAME,
            kind=kind,
            key=f"{kind}/{number}/{count}/{name}",
            contender=name,
            takes_s=10 + count / 8 + (12 if kind is Kind.CPU else 0),
            arguments={"count": count},
        )
        for kind, rounds, sizes, names in wanted
        for number in range(rounds)
        for count in sizes
        for name in rotated(names, number)
    ]


async def run(bed: Testbed, unit: Unit) -> dict[str, Any]:
    """One burst, on a machine that has come to rest."""
    contender = CONTENDERS[unit.contender]
    busy = await bed.rest()
    if unit.kind is Kind.CPU:
        await asyncio.sleep(_LOAD_FALLS_S)
    rooms = bed.rooms(contender, unit.arguments["count"])
    await bed.caller(contender)
    before = bed.cpu_s()
    sessions = await bed.ask(contender, rooms)
    await bed.log.wait_for_agents(rooms, within_s=_WITHIN_S, quiet_s=_QUIET_S)
    after = bed.cpu_s()
    await asyncio.sleep(_SURPLUS_S)
    await bed.see(contender, sessions)
    await bed.end(rooms, within_s=15)
    return {
        "busy_percent": busy,
        "cpu_s": {name: round(after[name] - before.get(name, 0.0), 3) for name in after},
        "sessions": [session.as_json() for session in sessions],
    }
