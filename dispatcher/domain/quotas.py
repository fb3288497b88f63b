"""What one client may ask for: its limits, its pace, and its share of the backlog.

They are checked in the step that writes (`lua/limits.lua`), for a new session as for one that is
sent again; here is what goes into that step, and what its refusals mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dispatcher.domain.models import NO_LIMITS, Limits
from dispatcher.errors import LimitReached, Overloaded

# A client's wake-ups go into the queue at once up to so many, then one in so many ms: behind 200 at
# once another client's next one would be the 201st.
AT_ONCE: Final = 20
PACE_MS: Final = 20

# Who has all the sessions that it may have shall ask again so much later: nobody knows when one
# will end.
SESSION_RETRY_S: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Admission:
    """What a new session has to pass, and one that is sent again by hand.

    Attributes:
        limits: its client's.
        paced: there are other clients, who shall not wait behind a long row of this one's.
        max_backlog: how many sessions of all clients may be on their way; 0: any number.
    """

    limits: Limits = NO_LIMITS
    paced: bool = False
    max_backlog: int = 0

    def order(self) -> dict[str, int]:
        """As `lua/create.lua` and `lua/advance.lua` read it."""
        return {
            "requests_per_minute": self.limits.requests_per_minute,
            "max_sessions": self.limits.max_sessions,
            "pace_ms": PACE_MS if self.paced else 0,
            "at_once": AT_ONCE,
            "backlog": self.max_backlog,
        }


NO_ADMISSION: Final = Admission()


@dataclass(frozen=True, kw_only=True)
class Clearing:
    """That the room of a cancelled session is to be looked into, if LiveKit was ever asked for it.

    Who cancels many wakes the workers for them at a pace of its own; the sweeper sees to the rest.
    """

    paced: bool

    def order(self) -> dict[str, int]:
        """As `lua/advance.lua` reads it."""
        return {"pace_ms": PACE_MS if self.paced else 0, "at_once": AT_ONCE}


def check(outcome: str, limits: Limits, *, wait_ms: Sequence[str | int]) -> None:
    """Raise what a step's refusal means; any other outcome passes.

    `wait_ms` has in how many ms there may be one more, where the step says that.

    Raises:
        LimitReached: the client has used up its requests, has all the sessions it may have, or asks
            for so many at once that this one would be due too late for its deadline.
        Overloaded: as many sessions of all clients are on their way as may be, and this client has
            its share of them.
    """
    match outcome:
        case "too_many_requests":
            most = limits.requests_per_minute
            reached = f"at most {most} requests per minute" if most else "too many requests at once"
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
