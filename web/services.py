"""The services of the web application: settings, ledger, clients, and state of the process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

from flask import current_app

from dispatcher.clients.client_registry import ClientRegistry
from dispatcher.clients.registry import registry
from dispatcher.domain.timing import Timings
from dispatcher.ledger.client import Ledger
from dispatcher.settings import CommonSettings, DispatcherSettings, load, timings
from web.settings import StreamSettings, WebSettings
from web.state.abuse_limits import SpentRequests, WrongKeys, WrongPasswords
from web.state.accepted_dispatches import Promises
from web.state.cache import Snapshots
from web.state.idempotency import Delegations
from web.state.key_usage import KeyUses
from web.state.promise_files import Spool, directory_for
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
    streams: Streams
    wrong_passwords: WrongPasswords
    wrong_keys: WrongKeys = field(default_factory=WrongKeys)
    spent_requests: SpentRequests = field(default_factory=SpentRequests)
    delegations: Delegations = field(default_factory=Delegations)
    snapshots: Snapshots = field(default_factory=Snapshots)

    @property
    def timings(self) -> Timings:
        """The time-outs of the settings."""
        return timings(self.common, self.dispatcher)


def make_services(common: CommonSettings) -> Services:
    """Make the services of an application, from the environment.

    Raises:
        ConfigurationError: an environment variable is missing or wrong.
    """
    ledger = Ledger(common)
    spool = Spool(directory_for(common.redis_url.get_secret_value()))
    return Services(
        common=common,
        dispatcher=load(DispatcherSettings),
        settings=load(WebSettings),
        clients=registry(),
        ledger=ledger,
        promises=Promises(ledger, retention_s=common.retention_s, spool=spool),
        key_uses=KeyUses(ledger),
        streams=Streams(ledger, load(StreamSettings)),
        wrong_passwords=WrongPasswords(ledger),
    )


def services() -> Services:
    """Return the services of the application that handles the present request."""
    return cast(Services, current_app.extensions["usher"])
