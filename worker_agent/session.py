"""Run the entry point of a job behind the fence, and keep the ledger informed of its agent.

`run` stands around the entry point of every job: it asks the ledger once more before the agent
connects (`fence.py`), lets the entry point do its work, and has reported that the agent is starting
(`starting.py`), that it has connected and is alive (`lease.py`), and what its end is
(`farewell.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Final

from livekit import rtc
from livekit.agents import JobContext

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import leases
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.observability import tracing
from dispatcher.settings import CommonSettings, load
from worker_agent import prewarm
from worker_agent.decisions import read_offer
from worker_agent.ending import Cause, Ending
from worker_agent.farewell import Farewell
from worker_agent.fence import Fence
from worker_agent.job import Job
from worker_agent.join_limit import joining
from worker_agent.lease import Lease
from worker_agent.livekit_workarounds import ffi_events, otel, room_options, shutdown
from worker_agent.session_close import SessionClose
from worker_agent.settings import GuardSettings

EntryPoint = Callable[[JobContext], Awaitable[None]]

# An entry point that has returned without connecting may have left that to a task of its own.
NOT_CONNECTED_S: Final = 2.0


async def run(entrypoint: EntryPoint, ctx: JobContext) -> None:
    """Run a job's entry point (called by livekit-agents, in the job's process), behind the fence.

    A job that is not our dispatcher's needs neither settings nor Redis.
    """
    offer = read_offer(ctx.job)
    if not offer.dispatch_id:
        joining.ended(ctx.job.id)  # its program decides whether and when it joins
        await entrypoint(ctx)
        return
    prewarm.prepare()  # where the program's own `setup_fnc` has taken the place of ours
    if offer.traceparent:
        tracing.start("usher-agent")  # this process is another than its agent server's
        otel.export_spans()
    common = load(CommonSettings)
    job = Job(ctx, offer, AsyncLedger(common), common=common, guard=load(GuardSettings))
    session = Session(job)
    try:
        if await session.fence.holds():
            room_options.spare(ctx.room)
            with tracing.for_others(session.watch()):
                await entrypoint(ctx)
            session.returned()
    except asyncio.CancelledError:
        raise  # livekit-agents ends an entry point that does not return
    except BaseException as error:
        await session.farewell.raised(error)
        raise
    finally:
        joining.ended(ctx.job.id)


class Session:
    """The agent of one job, from before it connects until it has left."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self.fence = Fence(job)
        self.farewell = Farewell(job, self.fence)
        self._session_close = SessionClose(job.ctx, self.farewell.end)
        self._lease = Lease(job, self.fence, self._session_close)

    def watch(self) -> tracing.Span:
        """Report from now on that the agent starts, connects and is alive, and what its end is.

        Returns the session's span.
        """
        job = self._job
        job.session_span = job.begin_span("session")
        job.ctx.room.on("connection_state_changed", self._on_connection_state)
        job.ctx.room.on("disconnected", self.farewell.on_disconnected)
        job.people.watch(
            came=job.news.set,  # told at once: this agent may die in the next moment
            left=self._on_person_left,
            foreign=lambda: job.spawn(self._have_room_looked_at()),
            successor=self._on_successor,
            offer=job.offer,
        )
        shutdown.on_beginning(job.ctx, self.farewell.on_shutdown)
        job.ctx.add_shutdown_callback(self._left)
        if self.fence.claimed:  # else it may be another's, and learns that after joining
            job.sign_of_life.start()
        return job.session_span

    def returned(self) -> None:
        """Note that the entry point has returned; a job that has not connected hardly will."""
        if not self._job.connected:
            self._job.spawn(self._look_whether_connected())

    async def _look_whether_connected(self) -> None:
        await asyncio.sleep(NOT_CONNECTED_S)
        if not self._job.connected and not self.farewell.begun:
            reason = "the agent program's entry point returned without connecting"
            self.farewell.end(Ending(cause=Cause.LOST, reason=reason))
            self._job.ctx.shutdown(reason=reason)

    def _on_connection_state(self, state: rtc.ConnectionState.ValueType) -> None:
        job = self._job
        if state == rtc.ConnectionState.CONN_CONNECTED and not job.connected:
            job.joining_span.add_event("connected")
            job.sign_of_life.stop()
            joining.ended(job.offer.job_id)
            job.renewing = asyncio.create_task(self._lease.keep())
            ffi_events.narrow(job.ctx.room)

    def _on_person_left(self) -> None:
        self._job.news.set()
        self._session_close.person_left()

    def _on_successor(self) -> None:
        """Leave at once if this agent answers no more: another dispatch's agent serves the room.

        The ledger says so, too, while that dispatch serves it, unless this agent cannot ask.
        """
        if self._job.leaving is not None:
            self._job.leave_at_once("another dispatch serves the room")

    async def _have_room_looked_at(self) -> None:
        """Have a worker look at the room, in which there is an agent that is not Usher's."""
        dispatch_id = self._job.offer.dispatch_id
        with contextlib.suppress(LedgerUnavailable):
            await self._job.store.run(leases.look_again(dispatch_id, in_s=0.0))

    async def _left(self, reason: str) -> None:
        """End everything of this job; called when livekit-agents has left the room, last of all."""
        job = self._job
        job.sign_of_life.stop()
        if job.renewing is not None:
            job.renewing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await job.renewing
        await self.farewell.left(reason)
        await job.store.aclose()
        if not job.connected:
            tracing.fail(job.joining_span, "NotConnected")
            tracing.fail(job.session_span, "NotConnected")
        tracing.end(job.joining_span)
        job.session_span.set_attribute("usher.reason", reason)
        tracing.end(job.session_span)
