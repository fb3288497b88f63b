"""Limit how much of a worker process one client may use.

A task holds one of 64 threads while it waits for its client's LiveKit. With several clients, each
may hold a limited number of threads. A task above that limit returns at once and its dispatch is
put in a line; the end of another task of that client wakes it. The line is only a convenience: the
records stay on the ledger's due list, so the sweeper wakes them if this process dies.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Final

from kombu.exceptions import OperationalError

logger = logging.getLogger(__name__)

_LINE_MAX: Final = 10_000

Wake = Callable[[str, str], None]


class Lanes:
    """The running tasks of one kind in this process, by client; belongs to one event loop."""

    def __init__(self, *, limit: int, wake: Wake) -> None:
        """`wake` is called with dispatch id and room, in a thread of its own."""
        self._limit = limit
        self._wake = wake
        self._in_hand: Counter[str] = Counter()
        self._lines: dict[str, dict[str, tuple[str, Wake]]] = {}
        self._waking: set[asyncio.Task[None]] = set()

    def in_hand(self, client_id: str) -> int:
        """Return how many tasks of that client are running."""
        return self._in_hand[client_id]

    @contextlib.contextmanager
    def enter(
        self, client_id: str, dispatch_id: str, room: str, *, alone: bool, wake: Wake | None = None
    ) -> Iterator[bool]:
        """Yield whether the task may go on; if not, its dispatch is woken again later.

        Args:
            alone: there is no other client, so no limit.
            wake: publishes this dispatch's wake-up, in place of the one given to `__init__`.
        """
        if not alone and self._in_hand[client_id] >= self._limit:
            line = self._lines.setdefault(client_id, {})
            if len(line) < _LINE_MAX:
                # One entry, however often the sweeper wakes the dispatch meanwhile.
                line[dispatch_id] = (room, wake or self._wake)
            yield False
            return
        self._in_hand[client_id] += 1
        try:
            yield True
        finally:
            self._in_hand[client_id] -= 1
            if not self._in_hand[client_id]:
                del self._in_hand[client_id]
            self._wake_next(client_id)

    def _wake_next(self, client_id: str) -> None:
        line = self._lines.get(client_id)
        if not line:
            return
        dispatch_id = next(iter(line))
        room, wake = line.pop(dispatch_id)
        if not line:
            del self._lines[client_id]
        task = asyncio.create_task(_publish(wake, dispatch_id, room))
        self._waking.add(task)  # the loop itself holds only a weak reference
        task.add_done_callback(self._waking.discard)


async def _publish(wake: Wake, dispatch_id: str, room: str) -> None:
    try:
        await asyncio.to_thread(wake, dispatch_id, room)
    except OperationalError as error:
        logger.warning(
            "wake-up not published",
            extra={"dispatch_id": dispatch_id, "error": type(error).__name__},
        )


# Webhook deliveries in progress, of one client.
EACH: Final = 4


# Of all clients.
ALL: Final = 16


class Slots:
    """The webhook deliveries in progress; belongs to one event loop."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    @contextlib.contextmanager
    def take(self, client_id: str) -> Iterator[bool]:
        """Yield whether a slot is free for this client."""
        if self._taken[client_id] >= EACH or self._taken.total() >= ALL:
            yield False
            return
        self._taken[client_id] += 1
        try:
            yield True
        finally:
            self._taken[client_id] -= 1
