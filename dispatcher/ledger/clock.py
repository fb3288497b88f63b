"""The ledger's clock, as far as a process knows it.

A write carries the time after which nobody waits for its answer any more: Redis, when it has hung,
comes to it all the same, and would do what its caller has been told had failed. It is the ledger's
clock (`lua/clock.lua`), which never goes back, and no host's.
"""

from __future__ import annotations

import time


class LedgerClock:
    """The ledger's clock, as last heard of, by this process's monotonic one."""

    def __init__(self) -> None:
        self._ahead_ms: float | None = None  # of our monotonic clock

    def heard(self, now_ms: int, *, asked_at: float) -> None:
        """Redis has answered with the clock what was asked then (by the monotonic clock).

        It has looked at it later than that, so what follows is never too early.
        """
        self._ahead_ms = now_ms - asked_at * 1000

    def in_ms(self, wait_s: float) -> float | None:
        """The clock in so many seconds, in ms; None as long as it has never been heard of."""
        if self._ahead_ms is None:
            return None
        return (time.monotonic() + wait_s) * 1000 + self._ahead_ms
