"""Limit how many agents of one process are joining their rooms at the same time.

With the thread executor all agents of an agent server are threads of one process. Of eighty that
join at once on two cores some are very late, and livekit-rtc ends a process of which one has not
answered 15 s after its connection ("timed out waiting for ReadyForRoomEventRequest"). So no more
are sent there at a time than it can serve; the others wait in Usher, where waiting costs nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Final

# How many may begin together when none was joining, and how many may then join at a time.
# Measured: docs/decisions/0043-one-native-client.md.
TOGETHER: Final = 40
AT_ONCE: Final = 32


class Joining:
    """The jobs of this process that are still joining their rooms. Thread-safe."""

    def __init__(self) -> None:
        self._joined: set[str] = set()
        self._since_idle: set[str] = set()
        self._lock = threading.Lock()
        self.changed: Callable[[], None] = lambda: None  # called from any thread

    def ended(self, job_id: str) -> None:
        """Note that a job joins no more: its agent is there, not Usher's, or will not come."""
        with self._lock:
            self._joined.add(job_id)
        self.changed()

    def room_for(self, job_ids: Iterable[str]) -> int:
        """Return how many more may begin, beside the jobs that there are."""
        there = set(job_ids)
        with self._lock:
            self._joined &= there
            joining = there - self._joined
            self._since_idle = self._since_idle | joining if joining else set()
            together = TOGETHER - len(self._since_idle)
            return max(together, AT_ONCE - len(joining), 0)


joining: Final = Joining()
