"""What time is it for Redis?

Asked with every report. A claim carries the time after which nobody waits for its answer any more:
Redis, when it has hung, comes to it all the same, and would grant a job that was refused long ago.
"""

from __future__ import annotations

import time


class LedgerClock:
    """Redis's clock, as far as this process knows it."""

    def __init__(self) -> None:
        self._ahead_ms: float | None = None  # of our monotonic clock

    def heard(self, now_ms: int, *, asked_at: float) -> None:
        """Redis has answered with its clock what was asked then (by the monotonic clock).

        It has looked at it later than that, so what follows is never too early.
        """
        self._ahead_ms = now_ms - asked_at * 1000

    def in_ms(self, wait_s: float) -> float | None:
        """Redis's clock in so many seconds, in ms; None as long as it has never answered."""
        if self._ahead_ms is None:
            return None
        return (time.monotonic() + wait_s) * 1000 + self._ahead_ms
