"""How do requests that come at the same time ask Redis together, and work while it does?

Of forty at once, each would wait for its own answer, while the processes behind Redis wake up and
take the CPU. So what the loop (`web/worker.py`) has found in one turn is answered together: each
request runs, in a greenlet of its own, up to its question to the ledger; the questions go to Redis
in one pipeline; each goes on with what needs no reply; then each has its own. Who is alone asks by
itself, and goes on in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from greenlet import getcurrent, greenlet

from dispatcher.errors import LedgerUnavailable
from dispatcher.step import Step
from dispatcher.store import Asked, Ledger

T = TypeVar("T")


class _Together(greenlet):
    """One of several that are answered together."""


@dataclass(slots=True)
class Question(Generic[T]):
    """A step that Redis is carrying out, or is about to."""

    ledger: Ledger
    step: Step[T]
    asked: Asked | None  # None: together with others

    def close(self) -> None:
        """Have the reply read, unless the answer has been had: the connection is others' too."""
        if self.asked is not None:
            self.ledger.replies(self.asked)
            self.asked = None

    def answer(self) -> T:
        """As `Ledger.run` without telling; to be asked for once.

        Raises:
            LedgerUnavailable: Redis is down, hung or refuses to work. A write may have been done.
        """
        if self.asked is None:
            reply = _parent().switch()
        else:
            asked, self.asked = self.asked, None
            [reply] = self.ledger.replies(asked)
            if isinstance(reply, LedgerUnavailable):
                raise reply
        return self.step.parse(reply)


def ask(ledger: Ledger, step: Step[T]) -> Question[T]:
    """Have Redis begin with `step`, with the others where several are answered together.

    What the caller does until it wants the answer is done while Redis works. It asks nothing else
    before it has had it.
    """
    if not isinstance(getcurrent(), _Together):
        return Question(ledger, step, ledger.ask([step]))
    question = Question(ledger, step, None)
    _parent().switch(question)
    return question


def _parent() -> greenlet:
    parent = getcurrent().parent
    assert parent is not None
    return parent


def do(tasks: Sequence[Callable[[], None]]) -> float:
    """Do the tasks, whose questions to the (one) ledger go together.

    Returns for how many seconds they have waited for it together.
    """
    if len(tasks) == 1:
        tasks[0]()
        return 0.0
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
