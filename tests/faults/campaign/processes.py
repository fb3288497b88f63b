"""Did the processes live through it? What supervisord has seen, and the product's signs of life.

Each process that has a file to say that it works (`USHER_ALIVE_FILE`) must touch it again once all
faults are over, as a probe wants it, and `/readyz` must miss nothing.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp

from tests.support.stacks import RunningStack

from .journal import Journal

_HEALS_WITHIN_S: Final = 20.0
_LOOK_EVERY_S: Final = 0.5
_ANSWERS_WITHIN_S: Final = 2.0
# supervisord tells the exit status of a process that ended by itself, of another one the signal.
_EXITED: Final = re.compile(
    r"^(?P<at>[-0-9]+ [:0-9]+),(?P<ms>\d+) \w+ exited: (?P<program>\S+) "
    r"\((?P<how>exit status [^)]+)\)"
)


def exits(log: Path) -> Iterator[dict[str, Any]]:
    """Every process that has ended by itself: when, which, and how."""
    for line in log.read_text(errors="replace").splitlines():
        if found := _EXITED.match(line):
            at = time.mktime(time.strptime(found["at"], "%Y-%m-%d %H:%M:%S"))
            yield {
                "at": at + int(found["ms"]) / 1000,
                "program": found["program"],
                "how": found["how"],
            }


async def note_processes(stack: RunningStack, journal: Journal) -> None:
    """Write down which processes have ended by themselves, and what does not work at the end."""
    for one in exits(stack.run_dir / "log" / "supervisord.log"):
        journal.write("exited", **one)
    began = time.time()
    give_up_at = time.monotonic() + _HEALS_WITHIN_S
    while missing := await _missing(stack, since=began):
        if time.monotonic() > give_up_at:
            break
        await asyncio.sleep(_LOOK_EVERY_S)
    journal.write("healed", missing=missing, took_s=round(time.time() - began, 1))


async def _missing(stack: RunningStack, *, since: float) -> list[str]:
    """What does not work as it should."""
    silent = [path.stem for path in stack.run_dir.glob("*.alive") if path.stat().st_mtime < since]
    timeout = aiohttp.ClientTimeout(total=_ANSWERS_WITHIN_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as http,
            http.get(f"{stack.web_url}/readyz") as response,
        ):
            not_ready = list((await response.json(content_type=None))["not_ready"])
    except (TimeoutError, aiohttp.ClientError, ValueError) as error:
        not_ready = [f"no answer ({type(error).__name__})"]
    return [f"process {name}" for name in sorted(silent)] + [f"readyz: {it}" for it in not_ready]
