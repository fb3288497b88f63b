"""Jobs that Usher itself gives to agent servers, without LiveKit's own dispatch.

`advance` chooses the agent server and puts the job into its list in the step that writes
`dispatched`; the agent server takes it from there. The list holds the job, the channel of the same
name only wakes: a lost message costs time and no job. Why:
docs/decisions/0139-direct-placement.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from dispatcher.domain.verification_steps import PLACED_TIMEOUT_S
from dispatcher.ledger import keys
from dispatcher.ledger.step import Step, ms

# An older job is dropped: its attempt has been given up, and the claim would be refused.
GOOD_FOR_S: Final = PLACED_TIMEOUT_S + 0.2


@dataclass(frozen=True, kw_only=True)
class Place:
    """A job, and the agent servers of which the one with the most free slots gets it."""

    servers: Sequence[str]  # their ids
    job: str  # LiveKit's `Job`, as JSON

    def order(self) -> dict[str, Any]:
        """Return the part of `Advance.order` that is about it."""
        return {"servers": self.servers, "job": self.job, "good_for_ms": ms(GOOD_FOR_S)}


def take(agent_server_id: str) -> Step[list[str]]:
    """Take the jobs given to this agent server; each is LiveKit's `Job`, as JSON."""
    return Step("take_jobs", (keys.jobs(agent_server_id),), (), list)
