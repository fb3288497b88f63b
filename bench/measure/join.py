"""The time to join of one session on an idle machine, and the time until the contender knows."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

from bench.contenders import CONTENDERS
from bench.procfiles import Kind
from bench.size import Size
from bench.testbed import Testbed
from bench.units import Unit, rotated

NAME: Final = "join"
_EACH_S: Final = 1.7
_NOTICED_WITHIN_S: Final = 2.0
# The contenders with a p99: the floor, what Usher replaces, and Usher.
_COMPARED: Final = ("direct", "background", "usher", "usher-direct")
_WITH_PROCESSES: Final = ("direct", "usher", "usher-direct")


def units(size: Size) -> list[Unit]:
    """Some sessions of each contender in each round; of few with the process executor."""
    wanted = (
        (Kind.SLOTS, size.join_rounds, tuple(CONTENDERS)),
        (Kind.PROCESS, size.join_process_rounds, _WITH_PROCESSES),
    )
    return [
        Unit(
            measure=NAME,
            kind=kind,
            key=f"{kind}/{number}/{name}",
            contender=name,
            takes_s=_EACH_S * each,
            arguments={"sessions": each},
        )
        for kind, rounds, names in wanted
        for number in range(rounds)
        for name in rotated(names, number)
        for each in [size.join_each if name in _COMPARED else size.join_others_each]
    ]


async def run(bed: Testbed, unit: Unit) -> dict[str, Any]:
    """One session after the other, each on a machine that has come to rest."""
    contender = CONTENDERS[unit.contender]
    chance = random.Random(unit.key)
    busy = await bed.settle(within_s=5)
    sessions = []
    for room in bed.rooms(contender, unit.arguments["sessions"]):
        [session] = await bed.ask(contender, [room])
        await bed.log.wait_for_agents([room], within_s=10)
        await asyncio.sleep(0.1)
        await bed.wait_until_noticed(contender, session, within_s=_NOTICED_WITHIN_S)
        await bed.see(contender, [session])
        sessions.append(session.as_json())
        await bed.end([room])
        await asyncio.sleep(chance.uniform(0.3, 0.5))  # in step with no periodic work
    return {"busy_percent": busy, "sessions": sessions}
