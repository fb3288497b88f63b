"""How many dispatches may be on their way to an agent at once?

LiveKit drops what no agent server takes at once, so no more are sent than there are free slots.
Each client's are counted for themselves: one whose LiveKit hangs must not use up the others' slots.
Reports are a moment old, so what is on its way is counted in the ledger, in the step that sends it;
the step that claims it takes a slot off its agent server's report.
When LiveKit drops jobs all the same (livekit-agents' own load report is the CPU's, and goes over
its threshold in a burst), fewer are sent at a time: half, and one more for each that arrives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from dispatcher.ledger import keys

# A start that nobody ends counts for so long: tries, waits and the offer.
STARTED_S: Final = 14.0
# Without a drop for so long, all free slots are used again.
WINDOW_S: Final = 6
# Never fewer: a job may be lost with an agent server that died, and the others shall not wait in a
# row for that.
LEAST_WINDOW: Final = 8


@dataclass(frozen=True, kw_only=True)
class InFlight:
    """What a change of state means for the others on their way to the same agent.

    Attributes:
        counts_s: from now on this dispatch counts as on its way, for so long; 0: it does not.
        free_slots: refuse the change (`full`) when as many are on their way; None: ask nothing.
        arrived: an agent server has taken it.
        dropped: LiveKit has offered it to nobody.
    """

    counts_s: float = 0.0
    free_slots: int | None = None
    arrived: bool = False
    dropped: bool = False

    def order(self, agent_name: str) -> dict[str, Any]:
        """As `lua/advance.lua` reads it."""
        order: dict[str, Any] = {"arrived": self.arrived, "dropped": self.dropped}
        if self.counts_s:
            order["inflight_ms"] = int(self.counts_s * 1000)
        if self.free_slots is not None:
            order["admit"] = self.free_slots
        if self.dropped:
            order["least_window"] = LEAST_WINDOW
        if self.arrived:
            order |= {"agent_name": agent_name, "capacity_channel": keys.CAPACITY_CHANNEL}
        return order


NOT_IN_FLIGHT: Final = InFlight()
# LiveKit has been asked for the agent.
SENT: Final = InFlight(counts_s=STARTED_S)
CLAIMED: Final = InFlight(arrived=True)
DROPPED: Final = InFlight(dropped=True)


def start(free_slots: int | None) -> InFlight:
    """It is started if a free slot is left for it; None where nobody reports slots."""
    return InFlight(counts_s=STARTED_S, free_slots=free_slots)
