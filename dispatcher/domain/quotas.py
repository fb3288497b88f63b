"""A client's limits, its pace, and its share of the backlog.

`lua/limits.lua` checks them in the step that writes, for a new session as for a redispatch. Here
are the values that go into that step, and the errors for its refusals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dispatcher.domain.models import NO_LIMITS, Limits
from dispatcher.errors import LimitReached, Overloaded

# Up to so many wake-ups of a client go into the queue at once, then one in so many ms: without a
# pace another client's next wake-up would stand behind 200 of this one's.
AT_ONCE: Final = 20
PACE_MS: Final = 20

# Retry-After for a client that has all its sessions: when one of them will end is not known.
SESSION_RETRY_S: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Admission:
    """Limits that a new session, or a redispatch on request, has to pass."""

    limits: Limits = NO_LIMITS
    paced: bool = False  # other clients exist, and must not wait behind a long row of this one's
    max_backlog: int = 0  # how many sessions of all clients may be on their way; 0: no limit

    def order(self) -> dict[str, int]:
        """Return the order that `lua/create.lua` and `lua/advance.lua` read."""
        return {
            "requests_per_minute": self.limits.requests_per_minute,
            "max_sessions": self.limits.max_sessions,
            "paced": self.paced,
            "backlog": self.max_backlog,
        }


NO_ADMISSION: Final = Admission()


def check(outcome: str, limits: Limits, *, wait_ms: Sequence[str | int]) -> None:
    """Raise the error for a step's refusal; any other outcome passes.

    `wait_ms` says in how many ms one more request is allowed, where the step knows.

    Raises:
        LimitReached: the client has used up its requests, has all the sessions it may have, or asks
            for so many at once that this one would be due too late for its deadline.
        Overloaded: the backlog of all clients has reached its limit, and this client has its share
            of it.
    """
    match outcome:
        case "too_many_requests":
            reached = f"at most {limits.requests_per_minute} requests per minute"
            raise LimitReached(reached, retry_after_s=int(wait_ms[0]) / 1000, spent=True)
        case "too_many_at_once":
            reached = "too many requests at once"
            raise LimitReached(reached, retry_after_s=int(wait_ms[0]) / 1000)
        case "too_fast":
            raise LimitReached(
                "more sessions at once than can be started in turn before their deadline; ask more "
                "slowly, or have deadline_s raised",
                retry_after_s=int(wait_ms[0]) / 1000,
            )
        case "too_many_sessions":
            raise LimitReached(
                f"at most {limits.max_sessions} sessions at once", retry_after_s=SESSION_RETRY_S
            )
        case "overloaded":
            raise Overloaded("too many of your sessions wait for their agents already")
