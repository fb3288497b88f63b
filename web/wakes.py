"""How is the dispatcher woken for a session, and why not before the answer?

A worker that wakes up takes a core from whoever makes the answer, for half a millisecond and more,
however low its priority (the kernel's scheduler gives who has slept its turn at once). So the
messages, which are written with their records, are held back (`usher:held_back`) until the requests
that have come together are answered. Then all of them come into the queue, in the order of their
records, and nobody waits for Redis's reply. Should this process die in that moment, the next one
that answers does it, or the sweeper, within a second.
"""

from __future__ import annotations

from dispatcher import ledger
from dispatcher.store import Ledger
from web.reply import after_answer


class Wakes:
    """Has the messages sent that were held back; one per process, thread-safe."""

    def __init__(self, store: Ledger) -> None:
        self._store = store
        self._wanted = False

    def send_later(self) -> None:
        """Wake the dispatcher after the present request's answer."""
        self._wanted = True
        after_answer(self._send)

    def _send(self) -> None:
        # Whichever thread is the first sends those of all: their records have been written.
        if self._wanted:
            self._wanted = False
            self._store.post(ledger.wake())
