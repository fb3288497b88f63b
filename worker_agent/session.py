"""Run the entry point of a job behind the fence, and keep the ledger informed of its agent.

`run` stands around the entry point of every job. It asks the ledger once more before the agent
connects (minutes may have passed for a process that was stopped), lets the entry point do its
work, and reports that the agent is starting, that it has connected, that it is alive, and what its
end is.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, cast

from livekit import api, rtc
from livekit.agents import JobContext

from dispatcher import client_servers, endings, keys, leases, ledger, messages, reports, tracing
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.guarding import Guard, Work
from dispatcher.leases import RENEW_S, Renewal
from dispatcher.ledger import Advanced, Step
from dispatcher.livekit import PEOPLE
from dispatcher.metrics import AgentCounts
from dispatcher.models import AGENT_CONNECTED, Dispatch, State
from dispatcher.settings import CommonSettings, load
from dispatcher.store import AsyncLedger
from dispatcher.transitions import log_fields, span_attributes
from worker_agent import guests, metrics, preparing, room_events, room_options
from worker_agent.adoption import DELEGATED_CLAIM_S, Taker, adopt
from worker_agent.connecting import joining
from worker_agent.departure import Departure, Told
from worker_agent.ending import (
    ROOM_CLOSED,
    ROOM_DELETED,
    Cause,
    Ending,
    People,
    of_disconnect,
    of_exception,
    of_shutdown,
    of_shutdown_callback,
)
from worker_agent.livekit_workarounds import shutdown
from worker_agent.offers import Offer, Reason, read_offer
from worker_agent.people import PeopleInRoom
from worker_agent.session_close import SessionClose
from worker_agent.settings import GuardSettings
from worker_agent.starting import SignOfLife
from worker_agent.tenants import Tenants

logger = logging.getLogger(__name__)

# Cut off from LiveKit for so long, an agent is of no use to anybody: somebody shall look.
CUT_OFF_S: Final = 15.0
# LiveKit's answer about who is in the room, before an agent leaves because it sees nobody.
LOOK_TIMEOUT_S: Final = 1.0
# An entry point that has returned without connecting may have left that to a task of its own.
NOT_CONNECTED_S: Final = 2.0
# After so long no verification waits for the agent: its connection wakes one.
SLOW_START_S: Final = 4.0
# LiveKit ends the jobs of a room that is deleted, too; whether it was is asked so long after each
# other.
ROOM_LOOKS_S: Final = (0.0, 0.2, 0.3)
# What a job has to tell when it ends is waited for so long; livekit-agents waits for it.
TELL_FOR_S: Final = 20.0
# So long a session that Redis has never heard of is kept for it at its end.
ADOPT_FOR_S: Final = 8.0
# Leaving a room takes milliseconds; LiveKit may be away.
LEAVE_TIMEOUT_S: Final = 2.0

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
        raise ConfigurationError(
            f"Usher cannot start, USHER_AGENT_ENTRYPOINT={path}: {error}; name it as "
            "<module>:<function>, with the module's folder in PYTHONPATH"
        ) from error
    if not asyncio.iscoroutinefunction(entrypoint):
        raise ConfigurationError(
            f"Usher cannot start, USHER_AGENT_ENTRYPOINT={path} is not an async function: name one"
        )
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
        deployment=ctx.job.deployment,
    )
    if not offer.dispatch_id:
        joining.ended(ctx.job.id)  # what it waits for before it joins is not ours to know
        await entrypoint(ctx)
        return
    preparing.prepare()  # where the program's own `setup_fnc` has taken the place of ours
    if offer.traceparent:
        tracing.start("usher-agent")  # this process is another than its agent server's
        guests.invite()
    fence = Fence(ctx, offer, AsyncLedger(load(CommonSettings)), load(GuardSettings))
    try:
        if await fence.holds():
            room_options.spare(ctx.room)
            with tracing.for_others(fence.watch()):
                await entrypoint(ctx)
            fence.returned()
    except asyncio.CancelledError:
        raise  # livekit-agents ends an entry point that does not return
    except BaseException as error:
        await fence.raised(error)
        raise
    finally:
        joining.ended(ctx.job.id)


class Fence:
    """What the ledger and one job's session tell each other."""

    def __init__(
        self, ctx: JobContext, offer: Offer, store: AsyncLedger, guard: GuardSettings
    ) -> None:
        self._container = container = guard.container
        self._tenants = Tenants(store, own_client_id=guard.client_id, server=client_servers.own())
        self._ctx = ctx
        self._offer = offer
        self._store = store
        self._guard = Guard(store)
        self._metrics_key = keys.agent_metrics(offer.client_id, container, offer.agent_name)
        self._joined = False
        self._common = load(CommonSettings)
        self._began_at = asyncio.get_running_loop().time()
        self._dispatch: Dispatch | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._starting = SignOfLife(offer, unwanted=lambda: self._withdraw("not connecting"))
        self._claimed = not offer.delegated
        # Another job or generation serves the dispatch, or the ledger knows that it is over.
        self._dismissed = False
        self._surplus = False
        self._farewell: asyncio.Task[None] | None = None
        self._disconnected: Ending | None = None
        self._leaving: Ending | None = None
        self._departure = Departure(
            store, offer, retention_s=self._common.retention_s, counts=self._counts(metrics.LEFT)
        )
        self._news = asyncio.Event()
        self._people = PeopleInRoom(ctx.room)
        self._people_had_left = False
        self._session_close = SessionClose(ctx, self._end)
        self._cut_off_since: float | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._joining = self._begin("join")
        self._session = tracing.NO_SPAN

    def _begin(self, name: str) -> tracing.Span:
        attributes = {**span_attributes(self._offer.ref), "usher.job_id": self._offer.job_id}
        return tracing.begin(name, parent=self._offer.traceparent, attributes=attributes)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # or the loop would hold it only weakly
        task.add_done_callback(self._tasks.discard)
        return task

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
            self._dispatch = preparing.ask(ledger.read(self._offer.dispatch_id))
            if self._dispatch is None:
                return await self._adopt()
        except (LedgerUnavailable, TimeoutError):
            return True
        if still_ours(self._dispatch, self._offer):
            return True
        self._withdraw("not connecting")
        return False

    def watch(self) -> tracing.Span:
        """Report that the agent starts, connects and is alive, and what its end is.

        Returns what the session is in the trace.
        """
        self._session = self._begin("session")
        room = self._ctx.room
        room.on("connection_state_changed", self._on_connection_state)
        room.on("disconnected", self._on_disconnected)
        self._people.watch(
            came=self._news.set,  # told at once: this agent may die in the next moment
            left=self._on_person_left,
            foreign=lambda: self._spawn(self._have_room_looked_at()),
            agent_name=self._offer.agent_name,
        )
        shutdown.on_beginning(self._ctx, self._on_shutdown)
        self._ctx.add_shutdown_callback(self._left)
        if self._claimed:  # one that is not may be another's, and finds out when it has joined
            self._starting.start()
        return self._session

    def returned(self) -> None:
        """The entry point has returned; if its job has not connected, it most likely never does."""
        if self._renewing is None:
            self._spawn(self._look_whether_connected())

    async def _look_whether_connected(self) -> None:
        await asyncio.sleep(NOT_CONNECTED_S)
        if self._renewing is None and self._farewell is None:
            reason = "the agent program's entry point returned without connecting"
            self._end(Ending(cause=Cause.LOST, reason=reason))
            self._ctx.shutdown(reason=reason)

    async def raised(self, error: BaseException) -> None:
        """The entry point has raised: told at once, and not only when livekit-agents is done."""
        self._end(of_exception(error))
        if self._farewell is not None:
            await asyncio.shield(self._farewell)

    def _on_connection_state(self, state: rtc.ConnectionState.ValueType) -> None:
        if state == rtc.ConnectionState.CONN_CONNECTED and self._renewing is None:
            self._joining.event("connected", {})
            self._starting.stop()
            joining.ended(self._offer.job_id)
            self._renewing = asyncio.create_task(self._stay())
            room_events.narrow(self._ctx.room)

    async def _have_room_looked_at(self) -> None:
        with contextlib.suppress(LedgerUnavailable):
            await self._store.run(leases.look_again(self._offer.dispatch_id, in_s=0.0))

    def _on_person_left(self) -> None:
        self._news.set()
        self._session_close.person_left()

    def _on_disconnected(self, reason: rtc.DisconnectReason.ValueType) -> None:
        self._disconnected = ending = of_disconnect(reason)
        if self._leaving is not None:
            self._spawn(self._gone(self._leaving.reason))
        else:
            self._end(ending, in_room=False)

    def _on_shutdown(self, reason: str, asked_for: bool) -> None:
        room = self._ctx.room
        if self._renewing is not None and not room.isconnected():
            return  # `_on_disconnected` knows why
        if asked_for or self._renewing is None:
            self._end(of_shutdown(reason, asked_for=asked_for))
        elif self._farewell is None and not self._dismissed:
            self._farewell = asyncio.create_task(self._after_shutdown(reason))

    async def _after_shutdown(self, reason: str) -> None:
        """Tell the end of a job that its agent server has ended: with its room, or against it."""
        over = await self._room_is_over()
        ending = of_shutdown(reason, asked_for=False) if over is None else over
        await self._say_farewell(ending, in_room=over is None)

    async def _room_is_over(self) -> Ending | None:
        """The ending of a room that LiveKit has deleted or closed; None when it is still there.

        LiveKit tells the agent by its connection, and by another one the agent server, which shuts
        the job down: that may be first, and then livekit-agents leaves the room by itself.
        """
        for pause_s in ROOM_LOOKS_S:
            await asyncio.sleep(pause_s)
            if self._disconnected in (ROOM_DELETED, ROOM_CLOSED):
                return self._disconnected
            if await self._room_is_gone():
                people = self._people.now()
                return ROOM_CLOSED if people.left_ago_s is not None else ROOM_DELETED
        return None

    async def _room_is_gone(self) -> bool:
        request = api.ListRoomsRequest(names=[self._offer.room_name])
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                return not (await self._ctx.api.room.list_rooms(request)).rooms
        except Exception as error:  # whatever it is: that is no word of LiveKit's
            logger.warning("cannot see the room", extra={**self._log_fields(), "error": str(error)})
            return False

    def _end(self, ending: Ending, *, in_room: bool = True) -> None:
        """The agent answers no more; told once, by whichever sign of it comes first."""
        self._starting.stop()
        if self._dismissed or self._farewell is not None:
            return
        self._farewell = asyncio.create_task(self._say_farewell(ending, in_room=in_room))

    async def _say_farewell(self, ending: Ending, *, in_room: bool) -> None:
        with tracing.inside(self._session):
            if self._renewing is None:
                await self._departure.tell_before_joining(ending, self._dispatch)
                self._dismissed = True
                return
            if not self._claimed and not await self._adopt_late():
                return
            if not self._joined:
                with contextlib.suppress(LedgerUnavailable):
                    await self._connected()
            if ending.cause is Cause.LOST:
                self._renewing.cancel()
            people = self._people.now()
            if ending is ROOM_CLOSED:  # LiveKit knows better; it tells late that one has left
                people = People(present=0, left_ago_s=people.left_ago_s or 0.0)
            told = await self._departure.tell(
                ending, people, in_room=in_room, dispatch=self._dispatch
            )
            while told is Told.UNTOLD and self._ctx.room.isconnected():
                await asyncio.sleep(RENEW_S)
                told = await self._departure.tell(
                    ending, self._people.now(), in_room=True, dispatch=self._dispatch
                )
        if told is Told.LEAVING:
            self._leaving = ending
            # A person of whom LiveKit has not told yet has not left: it tells up to 3 s late.
            self._people_had_left = people.present == 0 and people.left_ago_s is not None
            self._news.set()
        elif told is Told.CAME_BACK:
            self._withdraw("its people are served by another")
        else:
            self._dismissed = told is Told.OVER

    async def _gone(self, reason: str) -> None:
        """The room is left, after it was told that it would be."""
        with contextlib.suppress(LedgerUnavailable), tracing.inside(self._session):
            done = await self._store.run(self._departure.left(reason))
            self._departure.counted = done.applied
            self._dismissed = True

    async def _stay(self) -> None:
        """Report the join, then renew the lease for as long as this agent may stay."""
        while True:
            with contextlib.suppress(LedgerUnavailable):
                async with self._guard.one(Work.RENEW_LEASE, of=self._offer.dispatch_id):
                    wanted = self._claimed or await self._adopt()
                    if not self._joined:
                        with tracing.inside(self._joining):
                            await self._connected()
                        self._joining.end()
                    if not wanted or not await self._renew():
                        return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), RENEW_S)
            self._news.clear()

    async def _connected(self) -> None:
        identity = self._ctx.room.local_participant.identity
        slow = self._accepted_ago_s() > SLOW_START_S
        step = ledger.advance(
            self._offer.ref,
            AGENT_CONNECTED,
            fields={"agent_identity": identity},
            detail={"agent_identity": identity},
            agent_counts=self._counts(metrics.JOINED),
            once=f"joined:{self._offer.job_id}",
            wake=messages.verify(self._offer.dispatch_id, self._offer.room_name) if slow else None,
        )
        if self._surplus or not (await self._store.run(step)).applied:
            await self._count(metrics.JOIN_BATCH, metrics.JOINED)
        self._joined = True

    def _accepted_ago_s(self) -> float:
        """How long ago its agent server has accepted the job, as far as it is known."""
        before_s = 0.0
        if self._dispatch is not None:
            before_s = (self._dispatch.read_at_ms - self._dispatch.updated_at_ms) / 1000
        return before_s + asyncio.get_running_loop().time() - self._began_at

    def _counts(self, increments: Mapping[str, int]) -> AgentCounts:
        return AgentCounts(key=self._metrics_key, increments=increments)

    async def _count(self, batch: int, increments: Mapping[str, int]) -> None:
        """Count what changes no record: of an agent whose dispatch is another job's by now."""
        counts = [self._counts(increments)]
        await self._store.run(reports.count(self._offer.job_id, batch, counts))

    async def _renew(self) -> bool:
        """Say that this agent is alive; false when it has left, or is to leave."""
        room = self._ctx.room
        if room.connection_state == rtc.ConnectionState.CONN_DISCONNECTED:
            return False  # `_on_disconnected` says why; where that hangs, the lease's end does
        self._session_close.look()
        people = self._people.now().present
        if self._leaving is not None and people and self._people_had_left:
            # They left, their agent's session was over, and here they are again.
            if await self._departure.came_back(self._leaving) is not Told.CAME_BACK:
                return True  # Redis is away still: told again in a moment
            self._withdraw("its people are served by another")
            return False
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
            self._people.met = True
            renewal = await self._tell(1)
        return await self._obey(renewal)

    async def _obey(self, renewal: Renewal) -> bool:
        """Do what the ledger's answer asks of this agent; false when it does not stay."""
        common = self._common
        if renewal is Renewal.UNKNOWN and self._leaving is None:
            return await self._adopt()
        if renewal is Renewal.ABANDONED:
            ending = endings.nobody_came(
                self._offer.ref,
                waited_s=common.abandon_after_s,
                retention_s=common.retention_s,
                unless_asked_for_s=leases.STILL_TO_COME_S,
            )
            return not await self._finish(ending, "nobody has come")
        if renewal is Renewal.DESERTED:
            ending = endings.everybody_left(
                self._offer.ref,
                retention_s=common.retention_s,
                unless_asked_for_s=leases.STILL_TO_COME_S,
            )
            return not await self._finish(ending, "everybody has left")
        if renewal is not Renewal.OK:
            self._withdraw("leaving again")
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
                met=self._people.met,
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
        except Exception as error:  # whatever it is: that is no word of LiveKit's
            logger.warning("cannot see the room", extra={**self._log_fields(), "error": str(error)})
            return True
        return any(person.kind in PEOPLE for person in listed.participants)

    async def _adopt(self) -> bool:
        """Take over a dispatch that the ledger does not know to be ours; false when it is not."""
        room = self._ctx.room
        if not await self._tenants.here(self._offer.client_id):
            # Redis was away when its agent server was asked, and could not say so.
            self._withdraw(f"refused ({Reason.WRONG_CLIENT})")
            return False
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
            self._withdraw(f"refused ({decision.reason})")
        return decision.accept

    async def _adopt_late(self) -> bool:
        """Have the ledger know of a session that was delegated, and is over before Redis is back.

        Otherwise another agent is sent for it, to people who have gone. False when it is another's.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + ADOPT_FOR_S
        while loop.time() < until:
            with contextlib.suppress(LedgerUnavailable):
                return await self._adopt()
            await asyncio.sleep(RENEW_S)
        return True

    async def _finish(self, ending: Step[Advanced], what: str) -> bool:
        """End the record, then the job; false when a caller has just asked for it again."""
        with tracing.inside(self._session):
            done = await self._store.run(ending)
        if done.outcome == "wanted":
            return False
        self._dismissed = True
        self._leave_at_once(what)
        return True

    def _withdraw(self, what: str) -> None:
        """Leave, because another job or generation serves this dispatch now."""
        if self._surplus:
            return
        self._dismissed = self._surplus = True
        self._starting.stop()
        logger.warning(
            "surplus agent, %s: this dispatch is over, or served by another job or generation",
            what,
            extra=self._log_fields(),
        )
        self._leave_at_once("surplus agent")

    def _leave_at_once(self, reason: str) -> None:
        """End the job, and leave the room before livekit-agents has waited for the program."""
        self._ctx.shutdown(reason=reason)
        if self._renewing is not None:
            self._spawn(self._disconnect())

    async def _disconnect(self) -> None:
        with contextlib.suppress(Exception):  # whatever has become of the connection: it is over
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self._ctx.room.disconnect()

    async def _left(self, reason: str) -> None:
        """Called when livekit-agents has left the room, last of all."""
        self._starting.stop()
        if self._renewing is not None:
            self._renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._renewing
        if self._farewell is None and not self._dismissed:
            ending = of_shutdown_callback(reason)
            if ending.cause is Cause.LOST and self._renewing is not None:
                self._farewell = asyncio.create_task(self._after_shutdown(reason))
            else:
                self._end(ending, in_room=False)
        if self._farewell is not None:
            await asyncio.wait({self._farewell}, timeout=TELL_FOR_S)
        if self._leaving is not None and not self._dismissed:
            await self._gone(self._leaving.reason)
        with contextlib.suppress(LedgerUnavailable):
            if self._joined and not self._departure.counted:
                await self._count(metrics.LEAVE_BATCH, metrics.LEFT)
        await self._store.aclose()
        if self._renewing is None:
            self._joining.failed("NotConnected")
            self._session.failed("NotConnected")
        self._joining.end()
        self._session.set({"usher.reason": reason})
        self._session.end()

    def _log_fields(self) -> dict[str, object]:
        return {
            **log_fields(self._offer.ref),
            "generation": self._offer.generation,
            "job_id": self._offer.job_id,
        }
