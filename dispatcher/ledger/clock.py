"""The ledger's clock, as far as a process knows it.

A write carries the time after which its caller no longer waits: a Redis that has hung runs it later
nevertheless, and would do what its caller has been told had failed. The time is of the ledger's
clock (`lua/clock.lua`), which never goes back, not of a host's.
"""

from __future__ import annotations

import time


class LedgerClock:
    """The ledger's clock as last read, extrapolated by this process's monotonic clock."""

    def __init__(self) -> None:
        self._ahead_ms: float | None = None  # of the monotonic clock

    def heard(self, now_ms: int, *, asked_at: float) -> None:
        """Note Redis's answer `now_ms` to a request sent at `asked_at` (by the monotonic clock).

        Redis read its clock after that, so a time derived from it is never too early.
        """
        self._ahead_ms = now_ms - asked_at * 1000

    def in_ms(self, wait_s: float) -> float | None:
        """Return the clock in `wait_s` from now, in ms; None before the first read."""
        if self._ahead_ms is None:
            return None
        return (time.monotonic() + wait_s) * 1000 + self._ahead_ms
