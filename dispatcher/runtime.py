"""What do the tasks of one worker process share, and where do their coroutines run?

Celery has no asyncio pool, and LiveKit's client is asyncio only. So each worker process has one
event loop in a thread of its own, with one HTTP session, one Redis pool and one subscription; a
task (a thread of Celery's pool) hands its coroutine over and waits. What waits costs a thread,
never the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from kombu.exceptions import OperationalError

from dispatcher.clients import ClientRegistry, registry
from dispatcher.errors import LedgerUnavailable
from dispatcher.guarding import Guard, Work
from dispatcher.lanes import Lanes, Wake
from dispatcher.livekit import LiveKitClient, LiveKitClients
from dispatcher.models import Dispatch
from dispatcher.receivers import Receivers
from dispatcher.settings import CommonSettings, DispatcherSettings, load, timings
from dispatcher.store import AsyncLedger
from dispatcher.timing import Timings
from dispatcher.wakeups import Wakeups
from dispatcher.waking import wake_dispatch, wake_verification
from dispatcher.webhooks import Slots

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything that dispatching and verification do I/O with."""

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

    def livekit(self, dispatch: Dispatch) -> LiveKitClient:
        """The LiveKit server of the client that this dispatch belongs to."""
        credentials = self.clients.by_id(dispatch.client_id).livekit
        return self.livekit_clients.for_credentials(credentials)

    def turn(
        self, lanes: Lanes, dispatch: Dispatch, *, wake: Wake | None = None
    ) -> AbstractContextManager[bool]:
        """A block for one task; gives whether it may go on (see `lanes.py`).

        Every task that asks LiveKit needs one: a LiveKit that hangs holds it for seconds.
        """
        alone = len(self.clients.clients) < 2
        return lanes.enter(
            dispatch.client_id, dispatch.dispatch_id, dispatch.room_name, alone=alone, wake=wake
        )

    def unfenced(self, agent_name: str) -> bool:
        """True when the servers of that agent run without our request filter and reports."""
        return self.settings.unfenced(agent_name)

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

    `common` instead of the environment's is for whoever has other time-outs.
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
        dispatching=Lanes(limit=settings.client_tasks, wake=wake_dispatch),
        verifying=Lanes(limit=settings.client_tasks, wake=wake_verification),
        receivers=Receivers(allow_private=settings.webhook_allow_private),
        deliveries=Slots(),
    )


class Runtime:
    """The event loop of a worker process, in a daemon thread, and its services."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="usher-loop", daemon=True).start()
        self.services = self.run(open_services())

    def start(self, work: Work, run: Callable[[Services], Awaitable[None]]) -> None:
        """Have the periodic `work` done in the loop for as long as the process lives."""
        kept = self.services.guard.keep(work, lambda: run(self.services))
        asyncio.run_coroutine_threadsafe(kept, self._loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run `coroutine` in the loop and wait for its result; called from a pool thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()


@lru_cache(maxsize=1)
def runtime() -> Runtime:
    """The runtime of this process, started at its first use (after any fork)."""
    return Runtime()
