"""The dashboard's reads from the ledger, each cached for a short time per process.

Figures and health may be a second old, costlier reads some seconds. Each raises
`LedgerUnavailable` when Redis does not answer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dispatcher.domain.metrics import Figures, Window
from dispatcher.domain.models import Dispatch, State
from dispatcher.errors import UnreadableRecord
from dispatcher.ledger import dispatches, queries, statistics
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.queries import Page, Position
from dispatcher.ledger.statistics import Health
from web.services import Services

NEWEST_FAILURES: Final = 6
# A look at a thousand records is 3 ms of Redis; for more, the page asks with the cursor.
MOST_LOOKS: Final = 10
_KEEP_S: Final = 1.0
# A day is a hundred hashes per client, and a second more changes little of it.
_KEEP_WINDOW_S: Final = {Window.MINUTES: 1.0, Window.HOUR: 2.0, Window.DAY: 5.0, Window.ALL: 1.0}
_KEEP_FAILURES_S: Final = 1.5


@dataclass(frozen=True, kw_only=True)
class Sought:
    """The filter of a search for sessions; `since_s`: those of the last so many seconds only."""

    client_ids: tuple[str, ...]
    states: tuple[State, ...] = ()
    since_s: int | None = None
    text: str = ""
    limit: int
    after: Position | None = None


def read_figures(here: Services, window: Window, client_ids: Sequence[str]) -> Figures:
    """Return the figures of one window."""
    return here.snapshots.get(
        ("figures", window, *client_ids),
        _KEEP_WINDOW_S[window],
        lambda: statistics.read(here.ledger, window, client_ids),
    )


def read_health(here: Services) -> Health:
    """Return the health of all parts."""
    return here.snapshots.get("health", _KEEP_S, lambda: here.ledger.run(statistics.health()))


def find(store: Ledger, sought: Sought) -> Page:
    """Return a page of what is sought, after `MOST_LOOKS` looks at the most."""
    found: list[Dispatch] = []
    after = sought.after
    since_ms = int(time.time() * 1000) - sought.since_s * 1000 if sought.since_s else None
    for _ in range(MOST_LOOKS):
        page = store.run(
            queries.search(
                sought.client_ids,
                states=sought.states,
                since_ms=since_ms,
                text=sought.text,
                limit=sought.limit - len(found),
                after=after,
            )
        )
        found += page.dispatches
        after = page.next
        if after is None or len(found) >= sought.limit:
            break
    return Page(dispatches=tuple(found), next=after)


def newest_failures(here: Services, client_ids: Sequence[str]) -> tuple[Dispatch, ...]:
    """Return the whole records of the newest sessions that have failed."""
    sought = Sought(client_ids=tuple(client_ids), states=(State.FAILED,), limit=NEWEST_FAILURES)

    def read() -> tuple[Dispatch, ...]:
        found = []
        for each in find(here.ledger, sought).dispatches:
            with contextlib.suppress(UnreadableRecord):  # the others are shown
                dispatch = read_dispatch(here, each.dispatch_id)
                if dispatch is not None and dispatch.state is State.FAILED:
                    found.append(dispatch)
        return tuple(found)

    return here.snapshots.get(("failures", sought), _KEEP_FAILURES_S, read)


def find_kept(here: Services, sought: Sought) -> Page:
    """Return what `find` does, read a second ago at the most."""
    return here.snapshots.get(("find", sought), _KEEP_S, lambda: find(here.ledger, sought))


def read_dispatch(here: Services, dispatch_id: str) -> Dispatch | None:
    """Return a record, read half a second ago at the most; None: there is none."""
    return here.snapshots.get(
        ("dispatch", dispatch_id),
        _KEEP_S / 2,
        lambda: here.ledger.run(dispatches.read(dispatch_id)),
    )
