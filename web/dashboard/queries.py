"""The dashboard's queries, and its reads from the ledger, each cached for a short time per process.

Figures and health may be a second old, costlier reads some seconds. Each raises
`LedgerUnavailable` when Redis does not answer.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from dispatcher.domain.metrics import Figures, Window
from dispatcher.domain.models import Dispatch, State
from dispatcher.errors import UnreadableRecord
from dispatcher.ledger import dispatches, queries, statistics
from dispatcher.ledger.queries import Page, Position
from dispatcher.ledger.statistics import Health
from web.contract.request_schemas import DEFAULT_PAGE, MAX_PAGE
from web.services import Services, services

NEWEST_FAILURES: Final = 6
# A look at a thousand records is 3 ms of Redis; for more, the page asks with the cursor.
MOST_LOOKS: Final = 10
_KEEP_S: Final = 1.0
# A day is a hundred hashes per client, and a second more changes little of it.
_KEEP_WINDOW_S: Final = {Window.MINUTES: 1.0, Window.HOUR: 2.0, Window.DAY: 5.0, Window.ALL: 1.0}
_KEEP_FAILURES_S: Final = 1.5


def _empty_is_none(text: str) -> str | None:
    return text or None


class _Query(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    client: Annotated[str | None, Field(max_length=63), BeforeValidator(_empty_is_none)] = None

    @property
    def client_ids(self) -> tuple[str, ...]:
        """The clients to show; none for a client that no longer exists."""
        known = tuple(client.client_id for client in services().clients.clients)
        return known if self.client is None else tuple(c for c in known if c == self.client)


class OverviewQuery(_Query):
    """Query of `overview`."""

    window: Window = Window.HOUR


class SessionsQuery(_Query):
    """Query of `sessions`; `since_s`: only sessions asked for in the last so many seconds."""

    state: Annotated[State | None, BeforeValidator(_empty_is_none)] = None
    since_s: Annotated[int | None, Field(gt=0), BeforeValidator(_empty_is_none)] = None
    text: Annotated[str, Field(max_length=256)] = ""
    limit: Annotated[int, Field(ge=1, le=MAX_PAGE)] = DEFAULT_PAGE
    cursor: Annotated[Position | None, BeforeValidator(Position.parse)] = None


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


def find(here: Services, wanted: SessionsQuery, client_ids: Sequence[str]) -> Page:
    """Return a page of the sessions wanted, after `MOST_LOOKS` looks at the most."""
    found: list[Dispatch] = []
    after = wanted.cursor
    since_ms = int(time.time() * 1000) - wanted.since_s * 1000 if wanted.since_s else None
    for _ in range(MOST_LOOKS):
        page = here.ledger.run(
            queries.search(
                client_ids,
                states=(wanted.state,) if wanted.state else (),
                since_ms=since_ms,
                text=wanted.text.strip(),
                limit=wanted.limit - len(found),
                after=after,
            )
        )
        found += page.dispatches
        after = page.next
        if after is None or len(found) >= wanted.limit:
            break
    return Page(dispatches=tuple(found), next=after)


def newest_failures(here: Services, client_ids: Sequence[str]) -> tuple[Dispatch, ...]:
    """Return the whole records of the newest sessions that have failed."""
    wanted = SessionsQuery(state=State.FAILED, limit=NEWEST_FAILURES)

    def read() -> tuple[Dispatch, ...]:
        found = []
        for each in find(here, wanted, client_ids).dispatches:
            with contextlib.suppress(UnreadableRecord):  # the others are shown
                dispatch = read_dispatch(here, each.dispatch_id)
                if dispatch is not None and dispatch.state is State.FAILED:
                    found.append(dispatch)
        return tuple(found)

    return here.snapshots.get(("failures", *client_ids), _KEEP_FAILURES_S, read)


def find_kept(here: Services, wanted: SessionsQuery) -> Page:
    """Return what `find` does, read a second ago at the most."""
    ids = wanted.client_ids
    return here.snapshots.get(("find", wanted, ids), _KEEP_S, lambda: find(here, wanted, ids))


def read_dispatch(here: Services, dispatch_id: str) -> Dispatch | None:
    """Return a record, read half a second ago at the most; None: there is none."""
    return here.snapshots.get(
        ("dispatch", dispatch_id),
        _KEEP_S / 2,
        lambda: here.ledger.run(dispatches.read(dispatch_id)),
    )
