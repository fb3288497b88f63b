"""One atomic operation on the ledger, described without doing it.

`store.py` carries steps out, blocking or with asyncio.
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
