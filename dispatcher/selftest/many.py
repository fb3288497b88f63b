"""Request many sessions at once, and report how they went."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from dispatcher.errors import UsherError
from dispatcher.selftest.deployment import POLL_S, Deployment, Record, Session
from dispatcher.selftest.results import Done, Failed, Progress, spread

_TOLD: Final = 3  # so many kinds of failures are named
# The sessions together make no more requests a second than this.
_POLLS_PER_S: Final = 100


async def at_once(
    deployment: Deployment,
    ask: Callable[[], Awaitable[Session]],
    records: list[Record],
    *,
    count: int,
    deadline_s: float,
    progress: Progress,
) -> Done:
    """Ask for `count` sessions, and add the records of those that have joined to `records`.

    Raises:
        Failed: a session has not joined.
    """

    async def one() -> Session:
        session = await ask()
        poll_s = max(POLL_S, count / _POLLS_PER_S)
        records.append(
            await deployment.joined(session.dispatch_id, within_s=deadline_s, poll_s=poll_s)
        )
        if len(records) % max(1, count // 4) == 0:
            progress(f"{len(records)} of {count} joined")
        return session

    ends = await asyncio.gather(*(one() for _ in range(count)), return_exceptions=True)
    failed = [end for end in ends if isinstance(end, BaseException)]
    for error in failed:
        if not isinstance(error, UsherError):
            raise error
    if failed:
        raise Failed(f"{len(records)} of {count} joined; {_reasons(failed)}")
    sessions = [end for end in ends if isinstance(end, Session)]
    answers_ms = spread([session.answer_s * 1000 for session in sessions])
    joins_ms = spread([record["time_to_join_ms"] or 0 for record in records])
    told = f"time to join {_told(joins_ms)}; answers {_told(answers_ms)}"
    numbers = {
        "asked": count,
        "joined": count,
        "answer_ms": {name: round(value, 1) for name, value in answers_ms.items()},
        "time_to_join_ms": joins_ms,
    }
    return f"{count} of {count} joined; {told}", numbers


def _reasons(failed: Sequence[BaseException]) -> str:
    counted = Counter(_without_id(str(error)) for error in failed).most_common(_TOLD)
    return "; ".join(f"{number} x {text}" for text, number in counted)


def _without_id(text: str) -> str:
    return " ".join(word for word in text.split() if not word.startswith("dsp_"))


def _told(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.0f} ms" for name, value in values.items())
