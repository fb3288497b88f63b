"""The memory in Redis of a session that waits to be dispatched.

Dispatch only, with the workers stopped.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from bench.contenders import CONTENDERS, OWN_WEB
from bench.procfiles import Kind
from bench.size import Size
from bench.testbed import Testbed
from bench.units import Unit

NAME: Final = "memory"
_WITH_REDIS: Final = tuple(name for name in OWN_WEB if CONTENDERS[name].redis)


def units(size: Size) -> list[Unit]:
    """One for each contender that has a Redis; Usher's is the backlog's, too."""
    return [
        Unit(
            measure=NAME,
            kind=Kind.DISPATCH_ONLY,
            key=name,
            contender=name,
            takes_s=20 + size.memory_sessions / 150,
            arguments={"sessions": size.memory_sessions},
        )
        for name in _WITH_REDIS
    ]


async def run(bed: Testbed, unit: Unit) -> dict[str, Any]:
    """Have so many wait, and see what Redis has grown by; then they are worked off."""
    contender = CONTENDERS[unit.contender]
    await bed.fake("joins", "off" if contender.placement else "on")
    await bed.stop(*contender.workers)
    try:
        await asyncio.sleep(1)
        before = memory_bytes(bed, contender.redis)
        web_before = bed.rss_bytes(contender.web)
        caller = await bed.caller(contender)
        [prefix] = bed.rooms(contender, 1)
        asked = await caller.loop(
            loop_s=3600, connections=8, prefix=f"{prefix}-", count=unit.arguments["sessions"]
        )
        after = memory_bytes(bed, contender.redis)
        web_after = bed.rss_bytes(contender.web)
    finally:
        await bed.start(*contender.workers)
    waiting = len(asked["rooms"])
    return {
        "waiting": waiting,
        "errors": asked["errors"][:5],
        "redis_bytes_each": round((after - before) / waiting, 1),
        "web_bytes_each": round((web_after - web_before) / waiting, 1),
    }


def memory_bytes(bed: Testbed, program: str) -> int:
    """Return the memory of Redis's data, without its buffers for clients and the append file."""
    with bed.redis(program) as client:
        info: Any = client.info("memory")
        return (
            int(info["used_memory"]) - int(info["mem_clients_normal"]) - int(info["mem_aof_buffer"])
        )
