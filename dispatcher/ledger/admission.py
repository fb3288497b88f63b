"""Limit on the dispatches that are on their way to an agent at once.

LiveKit drops a job that no agent server takes at once, so no more are sent than there are free
slots. Each client is counted by itself: one whose LiveKit hangs must not use up the others' slots.
Reports are a moment old, so dispatches on their way are counted in the ledger, in the step that
sends them; the step that claims one takes a slot off its agent server's report.
When LiveKit drops jobs nevertheless (livekit-agents' own load report is the CPU's, and exceeds its
threshold in a burst), fewer are sent at a time: half, and one more for each that arrives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from dispatcher.ledger.step import ms

# A start that no step ends counts for so long: tries, waits and the offer.
STARTED_S: Final = 14.0
# After so long without a drop, all free slots are used again.
WINDOW_S: Final = 6
# The smallest window: one job may be lost with an agent server that died, and the other dispatches
# must not wait in a row because of it.
LEAST_WINDOW: Final = 8


@dataclass(frozen=True, kw_only=True)
class InFlight:
    """Effect of a change of state on the other dispatches on their way to the same agent."""

    counts_s: float = 0.0  # how long this dispatch counts as on its way; 0: it does not
    free_slots: int | None = None  # with as many on their way the change is refused (`full`)
    arrived: bool = False  # an agent server has taken the job
    dropped: bool = False  # LiveKit has offered the job to no agent server

    def order(self, agent_name: str) -> dict[str, Any]:
        """Return the part of `Advance.order` that is about it."""
        return {
            "inflight_ms": ms(self.counts_s) or None,
            "admit": self.free_slots,
            "arrived": self.arrived,
            "agent_name": agent_name if self.arrived else None,
            "dropped": self.dropped,
        }


NOT_IN_FLIGHT: Final = InFlight()
# LiveKit has been asked for the agent.
SENT: Final = InFlight(counts_s=STARTED_S)
CLAIMED: Final = InFlight(arrived=True)
DROPPED: Final = InFlight(dropped=True)


def start(free_slots: int | None) -> InFlight:
    """Return the start of an attempt that needs a free slot; None: the servers report no slots."""
    return InFlight(counts_s=STARTED_S, free_slots=free_slots)
