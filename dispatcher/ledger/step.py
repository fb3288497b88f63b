"""One atomic operation on the ledger, described without doing it.

`ledger/client.py` carries steps out, blocking or with asyncio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Step(Generic[T]):
    """One atomic operation on the ledger: a script, its keys and arguments, its answer's reader.

    `tell` is what is said to the log and the trace once it has been carried out, if anything.
    """

    script_name: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    parse: Callable[[Any], T]
    tell: Callable[[T], None] | None = None


def done(step: Step[T], reply: Any) -> T:
    """Make the answer of a step from Redis's reply, and tell whom it is to be told."""
    answer = step.parse(reply)
    if step.tell is not None:
        step.tell(answer)
    return answer
