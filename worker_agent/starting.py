"""Say that a job that has not connected yet is alive, from a thread of its own.

A program may need many seconds before it connects, and may block its event loop meanwhile; a job
process that is dead or frozen says nothing. The first sign comes after `RENEW_S`: most agents have
connected by then, and need none.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from dispatcher import leases
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.guarding import ThreadGuard, Work
from dispatcher.leases import RENEW_S, Renewal
from dispatcher.step import Step
from worker_agent import preparing
from worker_agent.offers import Offer


class SignOfLife:
    """The renewals of one starting job's lease, until it is stopped."""

    def __init__(self, offer: Offer, *, unwanted: Callable[[], None]) -> None:
        """`unwanted` is called in the running loop when the job's dispatch is no longer its own."""
        self._offer = offer
        self._unwanted = unwanted
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._guard = ThreadGuard(preparing.ask)

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
                renewal = preparing.ask(starting(self._offer))
                if renewal is Renewal.STALE and not self._stopped.is_set():
                    with contextlib.suppress(RuntimeError):  # the job's loop has been closed
                        self._loop.call_soon_threadsafe(self._unwanted)
                    return


def starting(offer: Offer) -> Step[Renewal]:
    """The renewal of a job that has not connected, and cannot say who is in its room."""
    return leases.renew(
        offer.ref, job_id=offer.job_id, people=-1, abandon_after_s=0, deserted_after_s=0
    )
