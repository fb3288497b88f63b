"""Split a dispatch's timeline into stages with durations.

Every event that moves the record ends one stage and begins the next. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from dispatcher.domain.models import Dispatch, TimelineEvent

QUEUE_WAIT: Final = "queue_wait"
WAITING: Final = "waiting"
DISPATCH: Final = "dispatch"
OFFER: Final = "offer"
ACCEPT: Final = "accept"
JOIN: Final = "join"
SESSION: Final = "session"
LEAVING: Final = "leaving"
ADOPTION: Final = "adoption"

# The stage that each event begins; empty: the event ends the dispatch. The first six stages are
# also the names of the histograms.
_BEGINS: Final[Mapping[str, str]] = {
    "queued": QUEUE_WAIT,
    "requeued": QUEUE_WAIT,
    "redispatch": QUEUE_WAIT,
    "agent_lost": QUEUE_WAIT,
    "agent_crashed": QUEUE_WAIT,
    "came_back": QUEUE_WAIT,
    "waiting": WAITING,
    "livekit_unreachable": WAITING,
    "dispatching": DISPATCH,
    "dispatched": OFFER,
    "offered": ACCEPT,
    "accepted": JOIN,
    "adopted": JOIN,
    "joined": SESSION,
    "agent_leaving": LEAVING,
    "restored": ADOPTION,
    "agent_left": "",
    "ended": "",
    "failed": "",
    "cancelled": "",
    "cancelled_by_client": "",
    "superseded": "",
}
# `dispatched` may be written after the agent server has reported the job.
_LATE_ANSWER_IN: Final = frozenset({ACCEPT, JOIN, SESSION, LEAVING})


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of a dispatch's way; `took_ms` grows while it is `open`."""

    name: str
    generation: int
    began_at_ms: int
    took_ms: int
    open: bool = False
    reason: str = ""  # why a dispatch waited


def stages(dispatch: Dispatch) -> tuple[Stage, ...]:
    """Return the stages in order; of a truncated timeline only those that it still has."""
    return tuple(_stages(dispatch))


def _stages(dispatch: Dispatch) -> Iterator[Stage]:
    begun: TimelineEvent | None = None
    name = ""
    for event in dispatch.timeline:
        begins = _BEGINS.get(event.event)
        if begins is None or (begins == OFFER and name in _LATE_ANSWER_IN):
            continue
        if begun is not None and name:
            yield _stage(name, begun, event.at_ms)
        begun, name = event, begins
    if begun is not None and name:
        yield _stage(name, begun, dispatch.read_at_ms, still=True)


def _stage(name: str, begun: TimelineEvent, until_ms: int, *, still: bool = False) -> Stage:
    return Stage(
        name=name,
        generation=begun.generation,
        began_at_ms=begun.at_ms,
        took_ms=max(0, until_ms - begun.at_ms),
        open=still,
        reason=begun.detail.get("reason", "") if name == WAITING else "",
    )
