"""The ledger, LiveKit clients and limits that the lifecycle's functions share."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass

from kombu.exceptions import OperationalError

from dispatcher.clients.client_registry import ClientRegistry
from dispatcher.clients.registry import registry
from dispatcher.domain.models import DIRECT, Dispatch
from dispatcher.domain.timing import Timings
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import dispatches
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.dispatches import Advanced
from dispatcher.ledger.guarding import Guard
from dispatcher.ledger.pubsub import Wakeups
from dispatcher.lifecycle.client_limits import Lanes, Slots
from dispatcher.lifecycle.webhook_http import Receivers
from dispatcher.livekit.client import LiveKitClient, LiveKitClients
from dispatcher.observability import state_changes, tracing
from dispatcher.publish import wake_worker
from dispatcher.settings import CommonSettings, DispatcherSettings, load, timings


@dataclass(frozen=True, kw_only=True)
class Services:
    """The ledger, LiveKit clients and limits that the lifecycle's functions share."""

    common: CommonSettings
    settings: DispatcherSettings
    clients: ClientRegistry
    ledger: AsyncLedger
    guard: Guard
    livekit_clients: LiveKitClients
    wakeups: Wakeups
    dispatching: Lanes
    verifying: Lanes
    receivers: Receivers
    deliveries: Slots
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep  # between two tries

    def livekit(self, dispatch: Dispatch) -> LiveKitClient:
        """Return the LiveKit client for the client that owns this dispatch."""
        credentials = self.clients.by_id(dispatch.client_id).livekit
        return self.livekit_clients.for_credentials(credentials)

    async def advance(self, command: Advance) -> Advanced:
        """Change a record. Raises like `dispatches.advance`."""
        return await self.ledger.run(dispatches.advance(command))

    @contextlib.contextmanager
    def turn(self, lanes: Lanes, dispatch: Dispatch, task: str) -> Iterator[bool]:
        """Count a task within its client's limit and trace it; yield whether it may go on.

        Every task that calls LiveKit needs this: a LiveKit that hangs holds it for seconds. One
        that may not go on is woken again (`client_limits.py`). The span is dropped if nothing
        happens.
        """
        name = task.rpartition(".")[2]
        alone = len(self.clients.clients) < 2
        span = tracing.span(
            f"process {name}",
            parent=dispatch.traceparent,
            kind=tracing.SpanKind.CONSUMER,
            attributes={
                **state_changes.span_attributes(dispatch),
                "messaging.system": "celery",
                "messaging.operation.type": "process",
                "messaging.operation.name": "process",
                "messaging.destination.name": name,
            },
            lazy=True,
        )
        with lanes.enter(dispatch, task, alone=alone) as may_go_on, span:
            yield may_go_on

    def fenced(self, dispatch: Dispatch) -> bool:
        """Return whether its agent's servers run with our request filter and reports."""
        return dispatch.agent_name not in self.settings.unfenced_names

    def direct(self, dispatch: Dispatch) -> bool:
        """Return whether its jobs are to be handed to agent servers by Usher itself."""
        own = self.clients.by_id(dispatch.client_id).placement
        return self.fenced(dispatch) and (own or self.settings.placement) == DIRECT

    @property
    def timings(self) -> Timings:
        """The time-outs of the settings."""
        return timings(self.common, self.settings)

    async def aclose(self) -> None:
        """Close every connection."""
        await self.wakeups.aclose()
        await self.livekit_clients.aclose()
        await self.receivers.aclose()
        await self.ledger.aclose()


async def open_services(common: CommonSettings | None = None) -> Services:
    """Make the services of this process, in the running loop, from the environment.

    `common` replaces the environment's, for a caller with other time-outs.
    """
    common = common or load(CommonSettings)
    settings = load(DispatcherSettings)
    store = AsyncLedger(common)
    guard = Guard(store, expected=(LedgerUnavailable, OperationalError))
    return Services(
        common=common,
        settings=settings,
        clients=registry(),
        ledger=store,
        guard=guard,
        livekit_clients=LiveKitClients(timeout_s=settings.livekit_timeout_s),
        wakeups=Wakeups(common, guard),
        dispatching=Lanes(limit=settings.client_tasks, wake=wake_worker),
        verifying=Lanes(limit=settings.client_tasks, wake=wake_worker),
        receivers=Receivers(allow_private=settings.webhook_allow_private),
        deliveries=Slots(),
    )
