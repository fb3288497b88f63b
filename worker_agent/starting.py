"""Tell the ledger, from a thread, that a job that has not connected yet is alive.

A program may block its event loop for many seconds before it connects; a job process that is dead
or frozen says nothing. Most agents have connected before the first sign, after `RENEW_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.ledger.guarding import ThreadGuard, Work
from dispatcher.ledger.leases import RENEW_S, Renewal
from worker_agent import prewarm, steps
from worker_agent.decisions import Offer


class SignOfLife:
    """The renewals of one starting job's lease, until it is stopped."""

    def __init__(self, offer: Offer, *, unwanted: Callable[[], None]) -> None:
        """`unwanted` is called in the running loop when the job's dispatch is no longer its own."""
        self._offer = offer
        self._unwanted = unwanted
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._guard = ThreadGuard(prewarm.ask)

    def start(self) -> None:
        """Begin to renew."""
        threading.Thread(target=self._run, name="usher-starting", daemon=True).start()

    def stop(self) -> None:
        """Renew no more; a renewal that is on its way still arrives."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(RENEW_S):
            with (
                contextlib.suppress(LedgerUnavailable, ConfigurationError),
                self._guard.one(Work.RENEW_STARTING),
            ):
                renewal = prewarm.ask(steps.starting(self._offer))
                if renewal is Renewal.STALE and not self._stopped.is_set():
                    with contextlib.suppress(RuntimeError):  # the job's loop has been closed
                        self._loop.call_soon_threadsafe(self._unwanted)
                    return
