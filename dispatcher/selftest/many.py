"""Request many sessions at once, and report how they went."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from dispatcher.errors import UsherError
from dispatcher.selftest.deployment import Deployment
from dispatcher.selftest.results import Done, Progress, spread
from dispatcher.selftest.sessions import Session, joined

_TOLD: Final = 3  # so many kinds of failures are named
_POLL_S: Final = 0.25
# The sessions together make no more requests a second than this.
_POLLS_PER_S: Final = 100

Record = Mapping[str, Any]


async def at_once(
    deployment: Deployment,
    ask: Callable[[], Awaitable[Session]],
    *,
    count: int,
    deadline_s: float,
    progress: Progress,
) -> tuple[list[Record], Done | str]:
    """Return the records of the joined sessions, and the result; a text alone is a failure."""
    arrived = 0

    async def one() -> tuple[Session, Record]:
        nonlocal arrived
        session = await ask()
        poll_s = max(_POLL_S, count / _POLLS_PER_S)
        record = await joined(deployment, session, within_s=deadline_s, poll_s=poll_s)
        arrived += 1
        if arrived % max(1, count // 4) == 0:
            progress(f"{arrived} of {count} joined")
        return session, record

    ends = await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
    failed = [end for end in ends if isinstance(end, BaseException)]
    for error in failed:
        if not isinstance(error, UsherError):
            raise error
    went = [end for end in ends if not isinstance(end, BaseException)]
    records = [record for _, record in went]
    if failed:
        return records, f"{len(went)} of {count} joined; {_reasons(failed)}"
    answers_ms = spread([session.answer_s * 1000 for session, _ in went])
    joins_ms = spread([record["time_to_join_ms"] or 0 for record in records])
    told = f"time to join {_told(joins_ms)}; answers {_told(answers_ms)}"
    numbers = {
        "asked": count,
        "joined": len(went),
        "answer_ms": {name: round(value, 1) for name, value in answers_ms.items()},
        "time_to_join_ms": joins_ms,
    }
    return records, (f"{count} of {count} joined; {told}", numbers)


def _reasons(failed: Sequence[BaseException]) -> str:
    counted = Counter(_without_id(str(error)) for error in failed).most_common(_TOLD)
    return "; ".join(f"{number} x {text}" for text, number in counted)


def _without_id(text: str) -> str:
    return " ".join(word for word in text.split() if not word.startswith("dsp_"))


def _told(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f} ms" for name, value in values.items())
