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

from dispatcher.domain.models import Dispatch

logger = logging.getLogger(__name__)

_LINE_MAX: Final = 10_000
# Webhook deliveries in progress: of each client, and of all.
CLIENT_SLOTS: Final = 4
SLOTS: Final = 16


class Lanes:
    """The running tasks of one kind in this process, by client; belongs to one event loop."""

    def __init__(self, *, limit: int, wake: Callable[[str, str, str], None]) -> None:
        """`wake` is called with task, dispatch id and room, in a thread of its own."""
        self.in_hand: Counter[str] = Counter()
        self._limit = limit
        self._wake = wake
        self._lines: dict[str, dict[str, tuple[str, str]]] = {}
        self._waking: set[asyncio.Task[None]] = set()

    @contextlib.contextmanager
    def enter(self, dispatch: Dispatch, task: str, *, alone: bool) -> Iterator[bool]:
        """Yield whether `task` may go on; if not, a worker is woken for it again later.

        `alone`: there is no other client, so no limit.
        """
        client_id = dispatch.client_id
        if not alone and self.in_hand[client_id] >= self._limit:
            line = self._lines.setdefault(client_id, {})
            if len(line) < _LINE_MAX:
                # One entry, however often the sweeper wakes the dispatch meanwhile.
                line[dispatch.dispatch_id] = (task, dispatch.room_name)
            yield False
            return
        self.in_hand[client_id] += 1
        try:
            yield True
        finally:
            self.in_hand[client_id] -= 1
            self._wake_next(client_id)

    def _wake_next(self, client_id: str) -> None:
        if line := self._lines.get(client_id):
            dispatch_id = next(iter(line))
            task, room = line.pop(dispatch_id)
            waking = asyncio.create_task(self._publish(task, dispatch_id, room))
            self._waking.add(waking)  # the loop itself holds only a weak reference
            waking.add_done_callback(self._waking.discard)

    async def _publish(self, task: str, dispatch_id: str, room: str) -> None:
        try:
            await asyncio.to_thread(self._wake, task, dispatch_id, room)
        except OperationalError as error:
            logger.warning(
                "wake-up not published",
                extra={"dispatch_id": dispatch_id, "error": type(error).__name__},
            )


class Slots:
    """The webhook deliveries in progress; belongs to one event loop."""

    def __init__(self) -> None:
        self._taken: Counter[str] = Counter()

    @contextlib.contextmanager
    def take(self, client_id: str) -> Iterator[bool]:
        """Yield whether a slot is free for this client."""
        if self._taken[client_id] >= CLIENT_SLOTS or self._taken.total() >= SLOTS:
            yield False
            return
        self._taken[client_id] += 1
        try:
            yield True
        finally:
            self._taken[client_id] -= 1
