"""Report that an agent has joined, and keep its lease for as long as it may stay."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from livekit import rtc

from dispatcher.domain.timing import STILL_TO_COME_S
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import endings, leases
from dispatcher.ledger.dispatches import Advanced
from dispatcher.ledger.guarding import Guard, Work
from dispatcher.ledger.leases import RENEW_S, Renewal
from dispatcher.ledger.step import Step
from dispatcher.observability import tracing
from worker_agent import metrics, room_view, steps
from worker_agent.departure import Told
from worker_agent.fence import Fence
from worker_agent.job import Job
from worker_agent.session_close import SessionClose

# An agent that is cut off from LiveKit for so long serves no person: a worker is to look.
CUT_OFF_S: Final = 15.0
# After so long no verification waits for the agent: its connection wakes one.
SLOW_START_S: Final = 4.0


async def report_joined(job: Job, fence: Fence) -> None:
    """Tell the ledger that the agent is in its room.

    Raises:
        LedgerUnavailable: Redis did not answer.
    """
    step = steps.connected(
        job.offer,
        job.ctx.room.local_participant.identity,
        counts=job.counts(metrics.JOINED),
        verify=fence.accepted_ago_s() > SLOW_START_S,
    )
    if job.surplus or not (await job.store.run(step)).applied:
        await job.count(metrics.JOIN_BATCH, metrics.JOINED)
    job.joined = True


class Lease:
    """The lease of one job's agent."""

    def __init__(self, job: Job, fence: Fence, session_close: SessionClose) -> None:
        self._job = job
        self._fence = fence
        self._session_close = session_close
        self._guard = Guard(job.store)
        self._cut_off_since: float | None = None

    async def keep(self) -> None:
        """Report the join, then renew until this agent has left, or is to leave."""
        job = self._job
        while True:
            with contextlib.suppress(LedgerUnavailable):
                async with self._guard.one(Work.RENEW_LEASE, of=job.offer.dispatch_id):
                    wanted = self._fence.claimed or await self._fence.adopt()
                    if not job.joined:
                        with tracing.inside(job.joining_span):
                            await report_joined(job, self._fence)
                        tracing.end(job.joining_span)
                    if not wanted or not await self._renew():
                        return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(job.news.wait(), RENEW_S)
            job.news.clear()

    async def _renew(self) -> bool:
        """Tell the ledger that this agent is alive; false when it has left, or is to leave."""
        job, room = self._job, self._job.ctx.room
        if room.connection_state == rtc.ConnectionState.CONN_DISCONNECTED:
            return False  # the farewell says why; where that hangs, the lease's end does
        self._session_close.look()
        people = job.people.now().present
        # The people left, the agent's session was over, and now people are there again. (An agent
        # that hung hears first of all who have come, and then that they have left.)
        over = job.leaving if people and job.people_had_left else None
        if over is not None and await room_view.has_people(job):
            if await job.departure.came_back(over) is not Told.CAME_BACK:
                return True  # Redis is away still: told again in a moment
            job.withdraw("its people are served by another")
            return False
        if self._cut_off_s() > CUT_OFF_S:
            return True
        if self._cut_off_since is not None:
            people = -1
        renewal = await self._tell(people)
        if renewal in (Renewal.ABANDONED, Renewal.DESERTED) and await room_view.has_people(job):
            job.people.met = True
            renewal = await self._tell(1)
        return await self._obey(renewal)

    def _cut_off_s(self) -> float:
        """Return for how long the agent has had no connection to LiveKit."""
        now = asyncio.get_running_loop().time()
        if self._job.ctx.room.connection_state == rtc.ConnectionState.CONN_CONNECTED:
            self._cut_off_since = None
            return 0.0
        self._cut_off_since = self._cut_off_since or now
        return now - self._cut_off_since

    async def _tell(self, people: int) -> Renewal:
        job = self._job
        return await job.store.run(
            leases.renew(
                job.offer,
                job_id=job.offer.job_id,
                people=people,
                abandon_after_s=job.common.abandon_after_s,
                deserted_after_s=job.common.deserted_after_s,
                met=job.people.met,
            )
        )

    async def _obey(self, renewal: Renewal) -> bool:
        """Do what the ledger's answer asks of this agent; false when it does not stay."""
        job, common = self._job, self._job.common
        if renewal is Renewal.UNKNOWN and job.leaving is None:
            return await self._fence.adopt()
        if renewal is Renewal.ABANDONED:
            ending = endings.nobody_came(
                job.offer, waited_s=common.abandon_after_s, retention_s=common.retention_s
            )
            return not await self._finish(ending, "no person has come")
        if renewal is Renewal.DESERTED:
            ending = endings.everybody_left(
                job.offer,
                retention_s=common.retention_s,
                unless_asked_for_s=STILL_TO_COME_S,
            )
            return not await self._finish(ending, "all people have left")
        if renewal is not Renewal.OK:
            job.withdraw("leaving again")
        return renewal is Renewal.OK

    async def _finish(self, ending: Step[Advanced], what: str) -> bool:
        """End the record, then the job; false when a caller has just asked for it again."""
        with tracing.inside(self._job.session_span):
            done = await self._job.store.run(ending)
        if done.outcome == "wanted":
            return False
        self._job.dismissed = True
        self._job.leave_at_once(what)
        return True
