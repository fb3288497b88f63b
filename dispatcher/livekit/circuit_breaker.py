"""A circuit breaker for one LiveKit server, as a pure state machine.

The caller gives it the outcomes of calls and the time; it says whether the next call may be made.
It opens after a number of calls in a row, of any kind, without an answer. From time to time it then
lets one call through, and any answer closes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# More than one dispatch's tries in a row (three), so that a lone session gets all of them.
THRESHOLD: Final = 10
PROBE_AFTER_S: Final = 5.0


@dataclass
class Breaker:
    """One server's circuit breaker. Times are seconds of one monotonic clock of the caller's."""

    threshold: int = THRESHOLD
    probe_after_s: float = PROBE_AFTER_S
    _answers: int = 0
    _failures: int = 0
    _next_probe_at: float = 0.0

    @property
    def is_open(self) -> bool:
        """True while the server counts as away."""
        return self._failures >= self.threshold

    def refuses(self, now: float) -> bool:
        """Return whether a call now would be refused; change nothing."""
        return self.is_open and now < self._next_probe_at

    def begin(self, now: float) -> int | None:
        """Begin a call; return None if it must not be made, else the token that `failed` takes.

        An open circuit lets one call through, and then none for `probe_after_s`.
        """
        if self.refuses(now):
            return None
        if self.is_open:
            self._next_probe_at = now + self.probe_after_s
        return self._answers

    def answered(self) -> bool:
        """Record any answer of the server; return whether it has closed the circuit."""
        closes = self.is_open
        self._answers += 1
        self._failures = 0
        return closes

    def failed(self, begun: int, now: float) -> bool:
        """Record a call without an answer; return whether it has opened the circuit.

        The call does not count if the server has answered another one since it began: late
        time-outs must not reopen a circuit that an answer has closed.
        """
        if begun != self._answers:
            return False
        self._failures += 1
        opens = self._failures == self.threshold
        if opens:
            self._next_probe_at = now + self.probe_after_s
        return opens
