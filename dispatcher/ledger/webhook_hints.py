"""LiveKit's webhooks as hints to look at a room sooner.

A webhook changes no record: a waiting verification looks at once, and a joined dispatch is due for
supervision now; both then ask LiveKit and go by the answer. Without webhooks they look by
themselves, a little later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dispatcher.ledger import keys
from dispatcher.ledger.step import Step

# Events older than this are refused, so an id must be remembered for longer, because clocks differ.
MAX_AGE_S: Final = 300
SEEN_S: Final = 2 * MAX_AGE_S + 60


class News(StrEnum):
    """Meaning of an event for Usher."""

    NOTHING = ""
    JOINED = "joined"
    LEFT = "left"


class Taken(StrEnum):
    """Result of a hint."""

    REPLAYED = "replayed"
    HINTED = "hinted"
    NOTHING = "nothing"


@dataclass(frozen=True, kw_only=True)
class Hint:
    """One event of one client's LiveKit; `dispatch_id` if the participant carries Usher's."""

    event_id: str
    event: str
    news: News
    client_id: str
    room_name: str
    dispatch_id: str = ""


def take(hint: Hint, agent_names: Sequence[str]) -> Step[Taken]:
    """Note that the event has been received, and have the dispatches that it concerns looked at."""
    rooms = tuple(keys.live(hint.client_id, name, hint.room_name) for name in agent_names)
    return Step(
        "hint",
        (keys.webhook_seen(hint.client_id, hint.event_id), keys.LEASES, *rooms),
        (SEEN_S, hint.news, hint.client_id, hint.dispatch_id, f"webhook:{hint.event}"),
        Taken,
    )
