"""How is the dispatcher woken for a session, and why not before the answer?

A worker that wakes up takes a core from whoever makes the answer, for half a millisecond and more,
however low its priority (the kernel's scheduler gives who has slept its turn at once). So the
messages are sent when the requests that have come together are answered, in one go, and nobody
waits for Redis's reply. Until then the record is there without one: should this process die in that
moment, the sweeper sends it (`USHER_WAKE_GRACE_S`).
"""

from __future__ import annotations

from collections import deque

from dispatcher import ledger
from dispatcher.models import NewDispatch
from dispatcher.store import Ledger
from web.reply import after_answer


class Wakes:
    """Sends what wakes the dispatcher; one per process, thread-safe."""

    def __init__(self, store: Ledger) -> None:
        self._store = store
        self._waiting: deque[NewDispatch] = deque()

    def send_later(self, new: NewDispatch) -> None:
        """Wake the dispatcher for that new record after the present request's answer."""
        self._waiting.append(new)
        after_answer(self._send)

    def _send(self) -> None:
        waiting = []
        while self._waiting:
            try:
                waiting.append(self._waiting.popleft())
            except IndexError:  # another thread was quicker
                break
        if waiting:
            self._store.post(ledger.wake(waiting))
