"""One atomic operation on the ledger, as a value.

`ledger/client.py` carries steps out blocking, `ledger/async_client.py` with asyncio.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Step(Generic[T]):
    """One atomic operation on the ledger: a script, its keys and arguments, its answer's reader.

    `tell`, if given, logs and traces the step after it has been carried out.
    """

    script_name: str
    keys: tuple[str, ...]
    args: tuple[str | int, ...]
    parse: Callable[[Any], T]
    tell: Callable[[T], None] | None = None


def ms(time_s: float) -> int:
    """Return a time in milliseconds, as the scripts have it."""
    return int(time_s * 1000)


def done(step: Step[T], reply: Any) -> T:
    """Return a step's answer from Redis's reply, after `tell` has logged it."""
    answer = step.parse(reply)
    if step.tell is not None:
        step.tell(answer)
    return answer
