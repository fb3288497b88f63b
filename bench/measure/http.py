"""The web's requests per second of one core, and the time of each answer.

Dispatch only: LiveKit is the fake one, because the web is measured. Answer times with real agents
on the same machine come from `join` (one at a time) and `burst` (forty at once).
"""

from __future__ import annotations

from typing import Any, Final

from bench.contenders import CONTENDERS, OWN_WEB
from bench.procfiles import Kind
from bench.size import Size
from bench.testbed import Testbed
from bench.units import Unit, rotated

NAME: Final = "http"
CONNECTIONS: Final = 16
_KEPT: Final = 1000


def units(size: Size) -> list[Unit]:
    """A stretch of each contender with a web of its own, in each round."""
    return [
        Unit(
            measure=NAME,
            kind=Kind.DISPATCH_ONLY,
            key=f"{number}/{name}",
            contender=name,
            takes_s=size.http_s + 15,
            arguments={"lasts_s": size.http_s},
        )
        for number in range(size.http_rounds)
        for name in rotated(OWN_WEB, number)
    ]


async def run(bed: Testbed, unit: Unit) -> dict[str, Any]:
    """Ask as fast as it answers, over kept connections; the web's CPU time is what counts."""
    contender = CONTENDERS[unit.contender]
    # The others' tasks shall end at once. Usher's records stay dispatched: joined ones would have
    # to be renewed by agents that are not there.
    await bed.fake("joins", "off" if contender.placement else "on")
    caller = await bed.caller(contender)
    [prefix] = bed.rooms(contender, 1)
    await caller.loop(loop_s=1, connections=CONNECTIONS, prefix=f"{prefix}-warm-")
    busy = await bed.settle()
    before = bed.cpu_s()
    asked = await caller.loop(
        loop_s=unit.arguments["lasts_s"], connections=CONNECTIONS, prefix=f"{prefix}-"
    )
    after = bed.cpu_s()
    await bed.begin_anew(contender)  # else the next one is measured beside what is left of this
    answered = len(asked["took_s"]) - len(asked["errors"])
    web_cpu_s = after[contender.web] - before[contender.web]
    return {
        "busy_percent": busy,
        "answered": answered,
        "errors": asked["errors"][:5],
        "per_s": round(answered / asked["lasted_s"], 1),
        "web_cpu_s": round(web_cpu_s, 3),
        "per_core_s": round(answered / web_cpu_s, 1),
        "took_ms": _thinned([round(took_s * 1000, 2) for took_s in asked["took_s"]]),
    }


def _thinned(values: list[float]) -> list[float]:
    """So many of them, evenly by rank, that every percentile stays what it is."""
    return sorted(values)[:: max(1, len(values) // _KEPT)]
