"""Lists of dispatches, of one client or of several, and the news of one dispatch."""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dispatcher.domain.models import Dispatch, State, TimelineEvent
from dispatcher.ledger import keys
from dispatcher.ledger.parsing import parse_dispatch, parse_event
from dispatcher.ledger.step import Step

logger = logging.getLogger(__name__)

# Records read by one call, so that no call holds Redis up for long (1,000 records: some 3 ms).
MOST_LOOKED_AT: Final = 1000

# Fields of a record without the one that may be long: its agent's metadata.
_FIELDS: Final = (
    "client_id",
    "room_name",
    "agent_name",
    "deployment",
    "generation",
    "container",
    "state",
    "created_at_ms",
    "requested_at_ms",
    "deadline_at_ms",
    "updated_at_ms",
    "agent_container",
    "agent_identity",
    "joined_at_ms",
    "time_to_join_ms",
    "failure_reason",
    "failure_message",
)
# A position as text, opaque to callers.
POSITION: Final = r"([0-9]{1,15})\.([A-Za-z0-9_-]{1,256})"


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place in a client's list: after the dispatch of that time and id."""

    created_at_ms: str
    dispatch_id: str

    def __str__(self) -> str:
        return f"{self.created_at_ms}.{self.dispatch_id}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Return the position that was given out as `text`.

        Raises:
            ValueError: it is no position.
        """
        found = re.fullmatch(POSITION, text, re.ASCII)
        if found is None:
            raise ValueError("is no cursor of ours")
        return cls(created_at_ms=found[1], dispatch_id=found[2])


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some of a client's dispatches, newest first, without attempts and timeline."""

    dispatches: tuple[Dispatch, ...]
    next: Position | None  # if there may be more: a page can be short, or empty, before the end


def page(client_id: str, *, state: State | None, limit: int, after: Position | None) -> Step[Page]:
    """Return up to `limit` dispatches of one client, in `state` if given, that follow `after`."""
    states = () if state is None else (state,)
    return search((client_id,), states=states, limit=limit, after=after, as_asked=True)


def search(
    client_ids: Sequence[str],
    *,
    states: Collection[State] = (),
    since_ms: int | None = None,
    text: str = "",
    limit: int,
    after: Position | None = None,
    as_asked: bool = False,
) -> Step[Page]:
    """Return up to `limit` dispatches of those clients, newest first, that follow `after`.

    If only failed dispatches are wanted, their time is that of the failure; else, or `as_asked`,
    the time is that of the request.

    Args:
        states: only dispatches in one of them; empty: in any.
        since_ms: only dispatches of this time (ms since the epoch) or later.
        text: only dispatches with it in the room's name, or at the beginning of the id.
    """
    by_failure = tuple(states) == (State.FAILED,) and not as_asked
    index = keys.failed_sessions if by_failure else keys.index
    return Step(
        "search",
        tuple(index(client_id) for client_id in client_ids),
        (
            limit,
            MOST_LOOKED_AT,
            after.created_at_ms if after else "",
            after.dispatch_id if after else "",
            "" if since_ms is None else since_ms,
            text,
            len(states),
            *states,
            *_FIELDS,
        ),
        _page,
    )


def _page(reply: list[Any]) -> Page:
    now_ms, found, created_at_ms, dispatch_id = reply
    parsed = (
        _parse(dispatch_id, now_ms, flat)
        for dispatch_id, flat in zip(found[::2], found[1::2], strict=True)
    )
    return Page(
        dispatches=tuple(dispatch for dispatch in parsed if dispatch is not None),
        next=Position(created_at_ms=created_at_ms, dispatch_id=dispatch_id)
        if dispatch_id
        else None,
    )


def _parse(dispatch_id: str, now_ms: int, flat: list[str]) -> Dispatch | None:
    try:
        return parse_dispatch(dispatch_id, now_ms, flat, [], [])
    except ValueError:
        # An unreadable record must not hide the others; the sweeper parks it.
        logger.exception("this record cannot be read", extra={"dispatch_id": dispatch_id})
        return None


@dataclass(frozen=True, kw_only=True)
class News:
    """State of a dispatch, and its latest events."""

    state: State | None  # None: there is no such record
    position: int  # number of the last of `events`, counted from the dispatch's first
    events: Sequence[TimelineEvent]


def news(dispatch_id: str, *, after: int) -> Step[News]:
    """Return the events of a dispatch after its event number `after`."""
    return Step("news", (keys.record(dispatch_id), keys.timeline(dispatch_id)), (after,), _news)


def _news(reply: list[Any]) -> News:
    state, position, events = reply
    return News(
        state=State(state) if state else None,
        position=position,
        events=list(map(parse_event, events)),
    )
