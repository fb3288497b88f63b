"""The services of the web application: settings, ledger, clients, and state of the process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from flask import current_app

from dispatcher.clients.client_registry import ClientRegistry
from dispatcher.domain.timing import Timings
from dispatcher.ledger.client import Ledger
from dispatcher.settings import CommonSettings, DispatcherSettings, timings
from web.settings import WebSettings
from web.state.abuse_limits import SpentRequests, WrongKeys, WrongPasswords
from web.state.accepted_dispatches import Promises
from web.state.cache import Snapshots
from web.state.idempotency import Delegations
from web.state.key_usage import KeyUses
from web.streaming.sse import Streams


@dataclass(frozen=True, kw_only=True)
class Services:
    """The services of the web application, for its views."""

    common: CommonSettings
    dispatcher: DispatcherSettings
    settings: WebSettings
    clients: ClientRegistry
    ledger: Ledger
    promises: Promises
    key_uses: KeyUses
    wrong_keys: WrongKeys
    spent_requests: SpentRequests
    delegations: Delegations
    streams: Streams
    wrong_passwords: WrongPasswords
    snapshots: Snapshots

    @property
    def timings(self) -> Timings:
        """The time-outs of the settings."""
        return timings(self.common, self.dispatcher)


def services() -> Services:
    """Return the services of the application that handles the present request."""
    return cast(Services, current_app.extensions["usher"])
