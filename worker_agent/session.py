"""May this job's agent be in its room, and does the ledger know that it is?

`run` is the session entry point of the agent server. It asks the ledger once more before the
agent connects (minutes may have passed for a process that was stopped), lets the configured
entry point do its work, and reports that the agent has connected and that it has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from collections.abc import Awaitable, Callable
from typing import cast

from livekit import rtc
from livekit.agents import JobContext

from dispatcher import ledger
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.ledger import agent_metrics_key
from dispatcher.models import AGENT_CONNECTED, AGENT_LEFT, Dispatch, State
from dispatcher.settings import CommonSettings, load
from dispatcher.store import AsyncLedger
from worker_agent import metrics
from worker_agent.request_filter import Offer, read_offer
from worker_agent.settings import AgentSettings

logger = logging.getLogger(__name__)

EntryPoint = Callable[[JobContext], Awaitable[None]]


def load_entrypoint(path: str) -> EntryPoint:
    """The coroutine function that `module:function` names.

    Raises:
        ConfigurationError: there is no such module or function.
    """
    module_name, _, name = path.partition(":")
    try:
        entrypoint = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"USHER_AGENT_ENTRYPOINT={path}: {error}") from error
    if not asyncio.iscoroutinefunction(entrypoint):
        raise ConfigurationError(f"USHER_AGENT_ENTRYPOINT={path} is not an async function")
    return cast(EntryPoint, entrypoint)


def still_ours(dispatch: Dispatch | None, offer: Offer) -> bool:
    """True while the record stands by this very job."""
    return (
        dispatch is not None
        and dispatch.generation == offer.generation
        and dispatch.job_id == offer.job_id
        and dispatch.state in (State.ACCEPTED, State.JOINED)
    )


async def run(ctx: JobContext) -> None:
    """The session entry point of every job (called by livekit-agents, in the job's process)."""
    settings = load(AgentSettings)
    entrypoint = load_entrypoint(settings.entrypoint)
    offer = read_offer(
        job_id=ctx.job.id,
        room_name=ctx.job.room.name,
        agent_name=ctx.job.agent_name,
        participant_count=ctx.job.room.num_participants,
        attributes=ctx.job.attributes,
    )
    if not offer.dispatch_id:
        await entrypoint(ctx)
        return
    fence = Fence(ctx, offer, AsyncLedger(load(CommonSettings)), settings.container)
    if await fence.holds():
        fence.watch()
        await entrypoint(ctx)


class Fence:
    """What the ledger and one job's session tell each other."""

    def __init__(self, ctx: JobContext, offer: Offer, store: AsyncLedger, container: str) -> None:
        self._ctx = ctx
        self._offer = offer
        self._store = store
        self._metrics_key = agent_metrics_key(offer.client_id, container, offer.agent_name)
        self._reporting: asyncio.Task[None] | None = None
        self._joined = False  # connected before: a reconnect is no second join

    async def holds(self) -> bool:
        """False, and the job ends, when the record stands by another job or generation now."""
        try:
            dispatch = await self._store.run(ledger.read(self._offer.dispatch_id))
        except LedgerUnavailable:
            # The claim was granted; whether it still is will be asked again after joining.
            return True
        if still_ours(dispatch, self._offer):
            return True
        self._leave("not connecting")
        return False

    def watch(self) -> None:
        """Report when the agent connects, and when it leaves."""
        self._ctx.room.on("connection_state_changed", self._on_connection_state)
        self._ctx.add_shutdown_callback(self._left)

    def _on_connection_state(self, state: rtc.ConnectionState.ValueType) -> None:
        if state == rtc.ConnectionState.CONN_CONNECTED:
            self._reporting = asyncio.create_task(self._connected())

    async def _connected(self) -> None:
        identity = self._ctx.room.local_participant.identity
        step = ledger.advance(
            self._offer.ref,
            AGENT_CONNECTED,
            fields={"agent_identity": identity},
            detail={"agent_identity": identity},
            metrics={} if self._joined else metrics.JOINED,
            metrics_key=self._metrics_key,
        )
        try:
            report = await self._store.run(step)
        except LedgerUnavailable as error:
            # Verification polls LiveKit anyway; this report would only have made it quicker.
            logger.warning("cannot report the join", extra={"error": str(error)})
            return
        self._joined = True
        if not report.applied or report.job_id != self._offer.job_id:
            self._leave("leaving again")

    async def _left(self, reason: str) -> None:
        if self._reporting is not None:
            await self._reporting
        step = ledger.advance(
            self._offer.ref,
            AGENT_LEFT,
            detail={"job_id": self._offer.job_id, "reason": reason},
            metrics=metrics.LEFT,
            metrics_key=self._metrics_key,
            retention_s=load(CommonSettings).retention_s,
        )
        with contextlib.suppress(LedgerUnavailable):
            await self._store.run(step)
        await self._store.aclose()

    def _leave(self, what: str) -> None:
        logger.warning(
            "surplus agent, %s: another job or generation serves this dispatch now",
            what,
            extra={
                "dispatch_id": self._offer.dispatch_id,
                "generation": self._offer.generation,
                "room": self._offer.room_name,
                "job_id": self._offer.job_id,
            },
        )
        self._ctx.shutdown(reason="surplus agent")
