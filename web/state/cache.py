"""A short-lived cache of the dashboard's reads from Redis.

Each value is read about once a second per process, with any number of viewers: it is kept for that
long, and of several requests at once one asks Redis.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

from cachetools import LRUCache

T = TypeVar("T")

# A slow read is repeated less often: it may use a twentieth of Redis's time at the most.
_REST: Final = 20

_MOST: Final = 256  # viewers choose what is read: filters, pages, sessions


@dataclass
class _Kept:
    lock: threading.Lock = field(default_factory=threading.Lock)
    value: Any = None
    until: float = 0.0


class Snapshots:
    """The values read a moment ago; one per process, thread-safe, and of bounded size."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kept: LRUCache[Hashable, _Kept] = LRUCache(_MOST)

    def get(self, name: Hashable, keep_s: float, read: Callable[[], T]) -> T:
        """Return what `read` gave at most `keep_s` ago. An exception is raised, and not kept."""
        with self._lock:
            kept = self._kept.setdefault(name, _Kept())
        with kept.lock:
            began = time.monotonic()
            if began >= kept.until:
                kept.value = read()
                now = time.monotonic()
                kept.until = now + max(keep_s, _REST * (now - began))
            return cast(T, kept.value)
