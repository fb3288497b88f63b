"""The time of each API key's last use, for the operator who rotates keys.

It is written to Redis once a minute per key and process at the most, by a thread of its own: no
answer waits for it.
"""

from __future__ import annotations

import atexit
import contextlib
import queue
import threading
import time
from typing import Final

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import reports
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.guarding import ThreadGuard, Work

PERIOD_S: Final = 60.0


class KeyUses:
    """A recorder of the uses of keys; one per process, thread-safe."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._guard = ThreadGuard(ledger.run)
        self._noted: dict[tuple[str, str], float] = {}
        self._news: queue.SimpleQueue[tuple[str, str] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="key-uses", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def note(self, client_id: str, key_id: str) -> None:
        """Note that this key has just been used."""
        use = (client_id, key_id)
        now = time.monotonic()
        if now - self._noted.get(use, -PERIOD_S) >= PERIOD_S:
            self._noted[use] = now  # two threads at once write it twice: no harm
            self._news.put(use)

    def close(self) -> None:
        """Write what is left."""
        self._news.put(None)
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while (use := self._news.get()) is not None:
            # A lost use is written with the next one, a minute later.
            with contextlib.suppress(LedgerUnavailable), self._guard.one(Work.NOTE_KEY_USES):
                self._ledger.run(reports.key_used(*use))
