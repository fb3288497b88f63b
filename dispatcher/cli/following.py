"""Follow one dispatch, or all, event by event."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from dispatcher.domain.models import TERMINAL, Dispatch, State, TimelineEvent
from dispatcher.errors import UnknownDispatch
from dispatcher.ledger import dispatches, keys, queries, reports
from dispatcher.ledger.client import Ledger

# A lost message delays an event no longer than this; a Redis that hangs is noticed as soon.
_LOOK_S: Final = 1.0


def follow(
    store: Ledger, dispatch_id: str, *, until: float
) -> Iterator[tuple[State, TimelineEvent]]:
    """Yield each event of a dispatch from its first one on, with the state of the record when read.

    Ends when the dispatch has ended, or at `until` (monotonic clock).

    Raises:
        UnknownDispatch: there is no such record, or none any more.
        LedgerUnavailable: Redis does not answer.
    """
    position = 0
    with store.listen(keys.wake_channel(dispatch_id)) as wait:
        while True:
            news = store.run(queries.news(dispatch_id, after=position))
            if news.state is None:
                raise UnknownDispatch(f"no dispatch {dispatch_id!r}")
            for event in news.events:
                yield news.state, event
            position = news.position
            left_s = until - time.monotonic()
            if news.state in TERMINAL or left_s <= 0:
                return
            wait(min(_LOOK_S, left_s))


def wait_for_join(store: Ledger, dispatch_id: str, *, within_s: float) -> Dispatch:
    """Return the record once it has joined or ended, or as it is after `within_s`."""
    until = time.monotonic() + within_s
    for state, _ in follow(store, dispatch_id, until=until):
        if state is State.JOINED:
            break
    dispatch = store.run(dispatches.read(dispatch_id))
    if dispatch is None:
        raise UnknownDispatch(f"dispatch {dispatch_id!r} has gone")
    return dispatch


def follow_all(
    store: Ledger, *, client_id: str | None, until: float, listening: Callable[[], None]
) -> Iterator[tuple[Dispatch, TimelineEvent]]:
    """Yield the events of all dispatches from now on, until `until` (monotonic clock).

    `listening` is called when the subscription is active: no event is missed from then on.

    Raises:
        LedgerUnavailable: Redis does not answer.
    """
    positions: dict[str, int] = {}
    with store.listen(f"{keys.WAKE_PREFIX}*") as wait:
        listening()
        while (left_s := until - time.monotonic()) > 0:
            channel = wait(min(_LOOK_S, left_s))
            if not channel:
                store.run(reports.ping())
                continue
            dispatch_id = channel.removeprefix(keys.WAKE_PREFIX)
            dispatch = store.run(dispatches.read(dispatch_id))
            if dispatch is None or client_id not in (None, dispatch.client_id):
                continue
            yield from _news_of(dispatch, positions)


def _news_of(
    dispatch: Dispatch, positions: dict[str, int]
) -> Iterator[tuple[Dispatch, TimelineEvent]]:
    last = dispatch.timeline_dropped + len(dispatch.timeline)
    # Of a dispatch that is seen for the first time, only the newest event.
    seen = positions.get(dispatch.dispatch_id, last - 1)
    for event in dispatch.timeline[max(0, seen - dispatch.timeline_dropped) :]:
        yield dispatch, event
    if dispatch.terminal:
        positions.pop(dispatch.dispatch_id, None)
    else:
        positions[dispatch.dispatch_id] = last
