"""What do the views work with?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from flask import current_app

from dispatcher.clients import ClientRegistry
from dispatcher.settings import CommonSettings, DispatcherSettings, timings
from dispatcher.store import Ledger
from dispatcher.timing import Timings
from web.events import Streams
from web.idempotency import Delegations
from web.key_uses import KeyUses
from web.limits import WrongKeys, WrongPasswords
from web.promises import Promises
from web.snapshots import Snapshots

if TYPE_CHECKING:
    from web.operators import Operator


@dataclass(frozen=True, kw_only=True)
class Services:
    """What the views work with."""

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
    flower_url: str  # where a browser finds Flower; empty: nobody has said

    @property
    def timings(self) -> Timings:
        """The time-outs of the settings."""
        return timings(self.common, self.dispatcher)


def services() -> Services:
    """The services of the application that handles the present request."""
    return cast(Services, current_app.extensions["usher"])
