"""May this job's agent be in its room, and does the ledger know that it is?

`run` stands around the entry point of every job. It asks the ledger once more before the agent
connects (minutes may have passed for a process that was stopped), lets the entry point do its
work, and reports that the agent has connected and that it has left.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, cast

import aiohttp
from livekit import api, rtc
from livekit.agents import JobContext
from livekit.agents.job import DEFAULT_PARTICIPANT_KINDS

from dispatcher import endings, keys, leases, ledger, reports, tracing
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.leases import RENEW_S, Renewal
from dispatcher.ledger import Advanced, Step
from dispatcher.livekit import PEOPLE
from dispatcher.metrics import AgentCounts
from dispatcher.models import (
    AGENT_CONNECTED,
    AGENT_LEFT,
    Dispatch,
    State,
)
from dispatcher.settings import CommonSettings, load
from dispatcher.store import AsyncLedger
from dispatcher.transitions import log_fields, span_attributes
from worker_agent import guests, metrics, preparing, room_events, room_options
from worker_agent.adoption import DELEGATED_CLAIM_S, Taker, adopt
from worker_agent.connecting import joining
from worker_agent.offers import Offer, read_offer
from worker_agent.settings import GuardSettings

logger = logging.getLogger(__name__)

# The agent lost LiveKit, or LiveKit the agent; in every other case somebody has ended the session.
LOST_REASONS: Final = frozenset(
    {
        rtc.DisconnectReason.SERVER_SHUTDOWN,
        rtc.DisconnectReason.STATE_MISMATCH,
        rtc.DisconnectReason.JOIN_FAILURE,
        rtc.DisconnectReason.SIGNAL_CLOSE,
        rtc.DisconnectReason.CONNECTION_TIMEOUT,
        rtc.DisconnectReason.MEDIA_FAILURE,
    }
)

# Cut off from LiveKit for so long, an agent is of no use to anybody: somebody shall look.
CUT_OFF_S: Final = 15.0
# LiveKit's answer about who is in the room, before an agent leaves because it sees nobody.
LOOK_TIMEOUT_S: Final = 1.0

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


async def run(entrypoint: EntryPoint, ctx: JobContext) -> None:
    """Run a job's entry point (called by livekit-agents, in the job's process), behind the fence.

    A job that is not our dispatcher's needs neither settings nor Redis.
    """
    offer = read_offer(
        job_id=ctx.job.id,
        room_name=ctx.job.room.name,
        agent_name=ctx.job.agent_name,
        participant_count=ctx.job.room.num_participants,
        attributes=ctx.job.attributes,
        metadata=ctx.job.metadata,
    )
    if not offer.dispatch_id:
        joining.ended(ctx.job.id)  # what it waits for before it joins is not ours to know
        await entrypoint(ctx)
        return
    preparing.prepare()  # where the program's own `setup_fnc` has taken the place of ours
    if offer.traceparent:
        tracing.start("usher-agent")  # this process is another than its agent server's
        guests.invite()
    fence = Fence(ctx, offer, AsyncLedger(load(CommonSettings)), load(GuardSettings).container)
    try:
        if await fence.holds():
            room_options.spare(ctx.room)
            with tracing.for_others(fence.watch()):
                await entrypoint(ctx)
    finally:
        joining.ended(ctx.job.id)


class Fence:
    """What the ledger and one job's session tell each other."""

    def __init__(self, ctx: JobContext, offer: Offer, store: AsyncLedger, container: str) -> None:
        self._container = container
        self._ctx = ctx
        self._offer = offer
        self._store = store
        self._metrics_key = keys.agent_metrics(offer.client_id, container, offer.agent_name)
        self._joined = False
        self._common = load(CommonSettings)
        self._renewing: asyncio.Task[None] | None = None
        self._disconnected: rtc.DisconnectReason.ValueType | None = None
        self._claimed = not offer.delegated
        self._surplus = False
        self._news = asyncio.Event()
        self._met = False
        self._cut_off_since: float | None = None
        self._joining = self._begin("join")
        self._session = tracing.NO_SPAN

    def _begin(self, name: str) -> tracing.Span:
        attributes = {**span_attributes(self._offer.ref), "usher.job_id": self._offer.job_id}
        return tracing.begin(name, parent=self._offer.traceparent, attributes=attributes)

    async def holds(self) -> bool:
        """False, and the job ends, when the record stands by another job or generation now."""
        with tracing.inside(self._joining), tracing.span("fence"):
            holds = await self._holds()
        if not holds:
            self._joining.failed("Fenced")
            self._joining.end()
        return holds

    async def _holds(self) -> bool:
        try:
            # Without the ledger: a claim that was granted, or a job that LiveKit has given by a
            # token. Whether it still is will be asked again after joining.
            if not self._claimed:
                async with asyncio.timeout(DELEGATED_CLAIM_S):
                    return await self._adopt()
            # It blocks this job's loop, in which nothing else is to be done yet: a connection that
            # is open already answers sooner than a new one could be made.
            dispatch = preparing.ask(ledger.read(self._offer.dispatch_id))
            if dispatch is None:
                return await self._adopt()
        except (LedgerUnavailable, TimeoutError):
            return True
        if still_ours(dispatch, self._offer):
            return True
        self._leave("not connecting")
        return False

    def watch(self) -> tracing.Span:
        """Report when the agent connects, that it is alive, and when it leaves.

        Returns what the session is in the trace.
        """
        self._session = self._begin("session")
        self._ctx.room.on("connection_state_changed", self._on_connection_state)
        self._ctx.room.on("disconnected", self._on_disconnected)
        self._ctx.room.on("participant_connected", self._on_participant)
        self._ctx.add_shutdown_callback(self._left)
        return self._session

    def _on_connection_state(self, state: rtc.ConnectionState.ValueType) -> None:
        if state == rtc.ConnectionState.CONN_CONNECTED and self._renewing is None:
            self._joining.event("connected", {})
            joining.ended(self._offer.job_id)
            self._renewing = asyncio.create_task(self._stay())
            room_events.narrow(self._ctx.room)

    def _on_participant(self, participant: rtc.RemoteParticipant) -> None:
        if participant.kind in DEFAULT_PARTICIPANT_KINDS:
            # Told at once: this agent may die in the next moment.
            self._met = True
            self._news.set()

    def _on_disconnected(self, reason: rtc.DisconnectReason.ValueType) -> None:
        self._disconnected = reason

    async def _stay(self) -> None:
        """Report the join, then renew the lease for as long as this agent may stay."""
        while True:
            with contextlib.suppress(LedgerUnavailable):
                wanted = self._claimed or await self._adopt()
                if not self._joined:
                    with tracing.inside(self._joining):
                        await self._connected()
                    self._joining.end()
                if not wanted:
                    return
                if not await self._renew():
                    return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), RENEW_S)
            self._news.clear()

    async def _connected(self) -> None:
        identity = self._ctx.room.local_participant.identity
        step = ledger.advance(
            self._offer.ref,
            AGENT_CONNECTED,
            fields={"agent_identity": identity},
            detail={"agent_identity": identity},
            agent_counts=self._counts(metrics.JOINED),
            once=f"joined:{self._offer.job_id}",
        )
        if self._surplus or not (await self._store.run(step)).applied:
            await self._count(metrics.JOIN_BATCH, metrics.JOINED)
        self._joined = True

    def _counts(self, increments: Mapping[str, int]) -> AgentCounts:
        return AgentCounts(key=self._metrics_key, increments=increments)

    async def _count(self, batch: int, increments: Mapping[str, int]) -> None:
        """Count what changes no record: of an agent whose dispatch is another job's by now."""
        counts = [self._counts(increments)]
        await self._store.run(reports.count(self._offer.job_id, batch, counts))

    async def _renew(self) -> bool:
        """Say that this agent is alive; false when it has left, or is to leave."""
        common = self._common
        room = self._ctx.room
        if room.connection_state == rtc.ConnectionState.CONN_DISCONNECTED:
            return False  # `_left` says why; where that hangs, the lease's end does
        people = sum(
            person.kind in DEFAULT_PARTICIPANT_KINDS for person in room.remote_participants.values()
        )
        self._met = self._met or people > 0
        now = asyncio.get_running_loop().time()
        if room.connection_state == rtc.ConnectionState.CONN_CONNECTED:
            self._cut_off_since = None
        else:
            self._cut_off_since = self._cut_off_since or now
            people = -1
            if now - self._cut_off_since > CUT_OFF_S:
                return True
        renewal = await self._tell(people)
        if renewal in (Renewal.ABANDONED, Renewal.DESERTED) and await self._somebody_is_there():
            self._met = True
            renewal = await self._tell(1)
        if renewal is Renewal.UNKNOWN:
            return await self._adopt()
        if renewal is Renewal.ABANDONED:
            ending = endings.nobody_came(
                self._offer.ref, waited_s=common.abandon_after_s, retention_s=common.retention_s
            )
            await self._end(ending, "nobody has come")
        elif renewal is Renewal.DESERTED:
            ending = endings.everybody_left(self._offer.ref, retention_s=common.retention_s)
            await self._end(ending, "everybody has left")
        elif renewal is not Renewal.OK:
            self._leave("leaving again")
        return renewal is Renewal.OK

    async def _tell(self, people: int) -> Renewal:
        common = self._common
        return await self._store.run(
            leases.renew(
                self._offer.ref,
                job_id=self._offer.job_id,
                people=people,
                abandon_after_s=common.abandon_after_s,
                deserted_after_s=common.deserted_after_s,
                met=self._met,
            )
        )

    async def _somebody_is_there(self) -> bool:
        """By LiveKit's own word; an answer that does not come is no "nobody".

        LiveKit (1.13.5, `subscriberUpdateInterval`) tells an agent of somebody who publishes
        nothing up to 3 s late.
        """
        request = api.ListParticipantsRequest(room=self._offer.room_name)
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                listed = await self._ctx.api.room.list_participants(request)
        except (TimeoutError, aiohttp.ClientError, api.TwirpError) as error:
            logger.warning("cannot see the room", extra={**self._log_fields(), "error": str(error)})
            return True
        return any(person.kind in PEOPLE for person in listed.participants)

    async def _adopt(self) -> bool:
        """Take over a dispatch that the ledger does not know to be ours; false when it is not."""
        room = self._ctx.room
        decision = await adopt(
            self._store,
            self._offer,
            Taker(
                container=self._container,
                agent_identity=room.local_participant.identity if room.isconnected() else "",
            ),
            counts=self._counts(metrics.ADOPTED),
            retention_s=self._common.retention_s,
        )
        self._claimed = decision.accept
        if not decision.accept:
            self._leave(f"refused ({decision.reason})")
        return decision.accept

    async def _end(self, ending: Step[Advanced], what: str) -> None:
        with tracing.inside(self._session):
            await self._store.run(ending)
        self._ctx.shutdown(reason=what)

    async def _left(self, reason: str) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing
        with contextlib.suppress(LedgerUnavailable), tracing.inside(self._session):
            if not await self._told(reason) and self._joined:
                await self._count(metrics.LEAVE_BATCH, metrics.LEFT)
        await self._store.aclose()
        if self._renewing is None:
            self._joining.failed("NotConnected")
            self._session.failed("NotConnected")
        self._joining.end()
        self._session.set({"usher.reason": reason})
        self._session.end()

    async def _told(self, reason: str) -> bool:
        """Tell the record that its agent leaves; true when that has counted it as well."""
        if self._surplus:
            return False  # the dispatch is another job's: its end is not ours to report
        if self._disconnected in LOST_REASONS:
            # Not the end of the session: somebody shall look at once whether people are left.
            await self._store.run(leases.lapse(self._offer.ref, job_id=self._offer.job_id))
            return False
        step = ledger.advance(
            self._offer.ref,
            AGENT_LEFT,
            detail={"job_id": self._offer.job_id, "reason": reason},
            agent_counts=self._counts(metrics.LEFT if self._joined else {}),
            retention_s=self._common.retention_s,
        )
        return (await self._store.run(step)).applied

    def _leave(self, what: str) -> None:
        self._surplus = True
        logger.warning(
            "surplus agent, %s: another job or generation serves this dispatch now",
            what,
            extra=self._log_fields(),
        )
        self._ctx.shutdown(reason="surplus agent")

    def _log_fields(self) -> dict[str, object]:
        return {
            **log_fields(self._offer.ref),
            "generation": self._offer.generation,
            "job_id": self._offer.job_id,
        }
