"""Access to the settings, the ledger and the list of clients for commands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

from dispatcher.cli.command import Exit, Problem
from dispatcher.clients.editing import ClientsFile, EditRefused
from dispatcher.domain.models import Dispatch, State
from dispatcher.domain.timing import Timings
from dispatcher.errors import ConfigurationError
from dispatcher.ledger import dispatches, queries, reports
from dispatcher.ledger.client import Ledger
from dispatcher.settings import (
    ClientIdSettings,
    ClientsFileSettings,
    CommonSettings,
    DispatcherSettings,
    load,
)
from dispatcher.settings import timings as timings_of

# An operator can wait longer than the web's callers, and may be far away from Redis.
TIMEOUT_S: Final = 0.8
_PAGE: Final = 100


def common_settings() -> CommonSettings:
    """Return the settings of the environment, with the time-outs of `TIMEOUT_S`."""
    settings = load(CommonSettings)
    return settings.model_copy(
        update={"redis_timeout_s": TIMEOUT_S, "redis_worker_timeout_s": TIMEOUT_S}
    )


def open_ledger() -> Ledger:
    """Open the ledger of REDIS_URL.

    Raises:
        ConfigurationError: REDIS_URL is missing or wrong.
    """
    return Ledger(common_settings())


def timings() -> Timings:
    """Return the time-outs of the environment, which explanations name.

    Raises:
        ConfigurationError: a setting is missing or wrong.
    """
    return timings_of(load(CommonSettings), load(DispatcherSettings))


def client_ids() -> tuple[str, ...]:
    """Return the ids of the configured clients; only the ids in the file of clients are read.

    Raises:
        ConfigurationError: the file cannot be read.
    """
    path = load(ClientsFileSettings).clients_file
    if not path:
        return (load(ClientIdSettings).client_id,)
    try:
        return tuple(ClientsFile(Path(path)).clients)
    except (OSError, EditRefused) as error:
        raise ConfigurationError(f"USHER_CLIENTS_FILE: {error}") from None


def wanted_clients(client_id: str | None) -> tuple[str, ...]:
    """Return that client, or all; a client that is no longer configured may still have records."""
    return (client_id,) if client_id else client_ids()


def read(store: Ledger, dispatch_id: str) -> Dispatch:
    """Return the record; end the command with an error if there is none."""
    dispatch = store.run(dispatches.read(dispatch_id))
    if dispatch is None:
        raise Problem(
            f"no dispatch {dispatch_id!r}: it never existed or its retention time is over "
            "(`list` shows what there is)",
            Exit.NOT_FOUND,
        )
    return dispatch


def newest(
    store: Ledger, client_id: str, *, state: State | None, since_s: float | None
) -> Iterator[Dispatch]:
    """Yield a client's dispatches created within `since_s`, the newest first."""
    now_ms = store.run(reports.ping())
    oldest_ms = 0.0 if since_s is None else now_ms - since_s * 1000
    position = None
    while True:
        page = store.run(queries.page(client_id, state=state, limit=_PAGE, after=position))
        for dispatch in page.dispatches:
            if dispatch.created_at_ms < oldest_ms:
                return
            yield replace(dispatch, read_at_ms=now_ms)
        position = page.next
        if position is None or float(position.created_at_ms) < oldest_ms:
            return
