"""The services of the web application: settings, ledger, clients, and state of the process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from flask import current_app

from dispatcher.clients.client_registry import ClientRegistry
from dispatcher.domain.timing import Timings
from dispatcher.ledger.client import Ledger
from dispatcher.settings import CommonSettings, DispatcherSettings, timings
from web.state.abuse_limits import WrongKeys, WrongPasswords
from web.state.accepted_dispatches import Promises
from web.state.cache import Snapshots
from web.state.idempotency import Delegations
from web.state.key_usage import KeyUses
from web.streaming.sse import Streams

if TYPE_CHECKING:
    from web.state.operator import Operator


@dataclass(frozen=True, kw_only=True)
class Services:
    """The services of the web application, for its views."""

    common: CommonSettings
    dispatcher: DispatcherSettings
    clients: ClientRegistry
    ledger: Ledger
    promises: Promises
    key_uses: KeyUses
    wrong_keys: WrongKeys
    delegations: Delegations
    streams: Streams
    operator: Operator
    metrics_local: bool  # callers on this machine may read /metrics without a credential
    wrong_passwords: WrongPasswords
    snapshots: Snapshots
    flower_url: str  # where a browser finds Flower; empty: not set

    @property
    def timings(self) -> Timings:
        """The time-outs of the settings."""
        return timings(self.common, self.dispatcher)


def services() -> Services:
    """Return the services of the application that handles the present request."""
    return cast(Services, current_app.extensions["usher"])
