"""How do requests that come at the same time ask Redis together, and work while it does?

Of forty at once, each would wait for its own answer, while the processes behind Redis wake up and
take the CPU. So what the loop (`web/worker.py`) has found in one turn is answered together: each
request runs, in a greenlet of its own, up to its question to the ledger; the questions go to Redis
in one pipeline; each goes on with what needs no reply; then each has its own.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from greenlet import getcurrent, greenlet

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import Step
from dispatcher.store import Ledger

T = TypeVar("T")


class _Together(greenlet):
    """One of several that are answered together."""


@dataclass(frozen=True, slots=True)
class Question(Generic[T]):
    """A step that Redis is carrying out, or is about to."""

    ledger: Ledger
    step: Step[T]

    def answer(self) -> T:
        """As `Ledger.run` without telling; to be asked for once.

        Raises:
            LedgerUnavailable: Redis is down, hung or refuses to work. A write may have been done.
        """
        parent = _parent()
        if parent is None:
            return self.ledger.run(self.step, tell=False)
        return self.step.parse(parent.switch())


def ask(ledger: Ledger, step: Step[T]) -> Question[T]:
    """Have Redis begin with `step`, where the caller is one of several that are answered together.

    What the caller does until it wants the answer is done while Redis works. It asks nothing else
    before it has had it.
    """
    question = Question(ledger, step)
    parent = _parent()
    if parent is not None:
        parent.switch(question)
    return question


def _parent() -> greenlet | None:
    here = getcurrent()
    return here.parent if isinstance(here, _Together) else None


def do(tasks: Sequence[Callable[[], None]]) -> float:
    """Do the tasks, whose questions to the (one) ledger go together.

    Returns for how many seconds they have waited for it.
    """
    waited_s = 0.0
    begun = [_Together(task) for task in tasks]
    asking = [(each, asked) for each in begun if (asked := each.switch()) is not None]
    while asking:
        ledger = asking[0][1].ledger
        began = time.monotonic()
        asked = ledger.ask([question.step for _, question in asking])
        waited_s += time.monotonic() - began
        try:
            for each, _ in asking:
                each.switch()  # until it wants its answer, or has ended
        finally:
            began = time.monotonic()
            replies = ledger.replies(asked)
            waited_s += time.monotonic() - began
        asking = [
            (each, question)
            for (each, _), reply in zip(asking, replies, strict=True)
            if not each.dead and (question := _go_on(each, reply)) is not None
        ]
    return waited_s


def _go_on(each: _Together, reply: Any) -> Question[Any] | None:
    question: Question[Any] | None = (
        each.throw(reply) if isinstance(reply, LedgerUnavailable) else each.switch(reply)
    )
    return question
