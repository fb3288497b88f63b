"""How do requests that come at the same time ask Redis together?

Of forty at once, each would wait for its own answer, while the processes behind Redis wake up and
take the CPU. So what the loop (`web/worker.py`) has found in one turn is answered together: each
request runs, in a greenlet of its own, up to its question to the ledger; the questions go to Redis
in one pipeline; then each goes on with its own reply.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from greenlet import getcurrent, greenlet

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import Step
from dispatcher.store import Ledger

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Question:
    ledger: Ledger
    step: Step[Any]


class _Together(greenlet):
    """One of several that are answered together."""


def run(ledger: Ledger, step: Step[T]) -> T:
    """As `Ledger.run` without telling; together with others where it is one of several.

    Raises:
        LedgerUnavailable: Redis is down, hung or refuses to work. A write may have been done.
    """
    here = getcurrent()
    if not isinstance(here, _Together) or here.parent is None:
        return ledger.run(step, tell=False)
    return step.parse(here.parent.switch(_Question(ledger, step)))


def do(tasks: Sequence[Callable[[], None]]) -> float:
    """Do the tasks, whose questions to the (one) ledger go together.

    Returns for how many seconds they have waited for it.
    """
    waited_s = 0.0
    begun = [_Together(task) for task in tasks]
    asking = [(each, asked) for each in begun if (asked := each.switch()) is not None]
    while asking:
        began = time.monotonic()
        replies = asking[0][1].ledger.ask([asked.step for _, asked in asking])
        waited_s += time.monotonic() - began
        going_on = zip(asking, replies, strict=True)
        asking = [
            (each, asked)
            for (each, _), reply in going_on
            if (asked := _go_on(each, reply)) is not None
        ]
    return waited_s


def _go_on(each: _Together, reply: Any) -> _Question | None:
    question: _Question | None = (
        each.throw(reply) if isinstance(reply, LedgerUnavailable) else each.switch(reply)
    )
    return question
