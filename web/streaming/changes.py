"""Changes of dispatches, by one Redis subscription for all event streams of a process.

A lost message costs a stream the rest of its polling period, so none is repeated.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Final

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import keys
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.guarding import ThreadGuard, Work

# A connection can be lost without a sign and then gets no messages, so each is renewed after this.
RENEW_S: Final = 60.0
_WAIT_S: Final = 1.0
_AGAIN_S: Final = 0.5


class Changes:
    """Wakes the streams whose dispatch has changed; one per process, thread-safe."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._guard = ThreadGuard(ledger.run)
        self._listeners: dict[str, set[threading.Event]] = {}
        self._wanted = threading.Event()
        self._closing = False
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def of(self, dispatch_id: str) -> Iterator[threading.Event]:
        """Yield an event that is set whenever the record of `dispatch_id` changes."""
        changed = threading.Event()
        with self._lock:
            self._listeners.setdefault(dispatch_id, set()).add(changed)
            self._wanted.set()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="changes", daemon=True)
                self._thread.start()
                atexit.register(self.close)
        try:
            yield changed
        finally:
            with self._lock:
                listeners = self._listeners[dispatch_id]
                listeners.remove(changed)
                if not listeners:
                    del self._listeners[dispatch_id]

    def close(self) -> None:
        """Stop listening."""
        self._closing = True
        self._wanted.set()
        if self._thread is not None:
            self._thread.join(timeout=2)

    def _run(self) -> None:
        while not self._closing:
            self._wanted.wait()
            # Without Redis: each stream polls by itself.
            with contextlib.suppress(LedgerUnavailable), self._guard.one(Work.READ_NEWS):
                self._listen()
                continue
            time.sleep(_AGAIN_S)

    def _listen(self) -> None:
        """Wake the streams for `RENEW_S`; then pause, if no stream is open."""
        until = time.monotonic() + RENEW_S
        with self._ledger.listen(f"{keys.WAKE_PREFIX}*") as wait:
            while not self._closing and time.monotonic() < until:
                channel = wait(_WAIT_S)
                if channel:
                    self._wake(channel.removeprefix(keys.WAKE_PREFIX))
        with self._lock:
            if not self._listeners and not self._closing:
                self._wanted.clear()

    def _wake(self, dispatch_id: str) -> None:
        with self._lock:
            for changed in self._listeners.get(dispatch_id, ()):
                changed.set()
