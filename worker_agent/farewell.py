"""Report the end of a job's agent to the ledger, once, at the first sign of it.

The signs come in any order: the entry point raises, the `AgentSession` closes, livekit-agents
begins to shut the job down, the room disconnects. What each means is in `ending.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
from typing import Final

from livekit import rtc

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger.leases import RENEW_S
from dispatcher.observability import tracing
from worker_agent import metrics, room_view
from worker_agent.departure import Told
from worker_agent.ending import (
    ROOM_CLOSED,
    ROOM_DELETED,
    Cause,
    Ending,
    People,
    is_asked_for,
    of_disconnect,
    of_exception,
    of_shutdown,
)
from worker_agent.fence import Fence
from worker_agent.job import Job
from worker_agent.lease import report_joined

# LiveKit ends the jobs of a room that is deleted, too. It is asked for the room after these pauses.
ROOM_LOOKS_S: Final = (0.0, 0.2, 0.3)
# What a job has to tell when it ends is waited for so long; livekit-agents waits for it.
TELL_FOR_S: Final = 20.0


class Farewell:
    """The end of one job's agent, reported once."""

    def __init__(self, job: Job, fence: Fence) -> None:
        self._job = job
        self._fence = fence
        self._telling: asyncio.Task[None] | None = None
        self._disconnected: Ending | None = None

    @property
    def begun(self) -> bool:
        """True once the end is being told."""
        return self._telling is not None

    def end(self, ending: Ending, *, in_room: bool = True) -> None:
        """Tell that the agent answers no more, unless that has been told."""
        self._job.sign_of_life.stop()
        if self._job.dismissed or self._telling is not None:
            return
        self._telling = asyncio.create_task(self._tell(ending, in_room=in_room))

    async def raised(self, error: BaseException) -> None:
        """Tell at once that the entry point has raised, not only when livekit-agents is done."""
        self.end(of_exception(error))
        if self._telling is not None:
            await asyncio.shield(self._telling)

    def on_disconnected(self, reason: rtc.DisconnectReason.ValueType) -> None:
        """Tell the end that the room's event `disconnected` means."""
        self._disconnected = ending = of_disconnect(reason)
        leaving = self._job.leaving
        if leaving is not None:
            self._job.spawn(self._gone(leaving))
        else:
            self.end(ending, in_room=False)

    def on_shutdown(self, reason: str, asked_for: bool) -> None:
        """Tell the end when livekit-agents begins to shut the job down, asked for or not."""
        if not self._job.connected or self._job.ctx.room.isconnected():
            self._shut_down(reason, asked_for=asked_for)  # else `on_disconnected` knows why

    def _shut_down(self, reason: str, *, asked_for: bool, in_room: bool = True) -> None:
        if asked_for or not self._job.connected:
            self.end(of_shutdown(reason, asked_for=asked_for), in_room=in_room)
        elif self._telling is None and not self._job.dismissed:
            self._telling = asyncio.create_task(self._after_shutdown(reason))

    async def left(self, reason: str) -> None:
        """Tell what is untold; called when livekit-agents has left the room, last of all."""
        job = self._job
        self._shut_down(reason, asked_for=is_asked_for(reason), in_room=False)
        if self._telling is not None:
            await asyncio.wait({self._telling}, timeout=TELL_FOR_S)
        if job.leaving is not None and not job.dismissed:
            await self._gone(job.leaving)
        with contextlib.suppress(LedgerUnavailable):
            if job.joined and not job.departure.counted:
                await job.count(metrics.LEAVE_BATCH, metrics.LEFT)

    async def _after_shutdown(self, reason: str) -> None:
        """Tell the end of a job that its agent server has ended: with its room, or against it."""
        over = await self._room_is_over()
        ending = of_shutdown(reason, asked_for=False) if over is None else over
        await self._tell(ending, in_room=over is None)

    async def _room_is_over(self) -> Ending | None:
        """Return the ending of a room that LiveKit has deleted or closed; None when it is there.

        LiveKit tells the agent by its connection, and by another one the agent server, which shuts
        the job down: that may be first, and then livekit-agents leaves the room by itself.
        """
        for pause_s in ROOM_LOOKS_S:
            await asyncio.sleep(pause_s)
            if self._disconnected in (ROOM_DELETED, ROOM_CLOSED):
                return self._disconnected
            if await room_view.is_gone(self._job):
                people = self._job.people.now()
                return ROOM_CLOSED if people.left_ago_s is not None else ROOM_DELETED
        return None

    async def _tell(self, ending: Ending, *, in_room: bool) -> None:
        job = self._job
        with tracing.inside(job.session_span):
            if job.renewing is None:
                await job.departure.tell_before_joining(ending, self._fence.dispatch)
                job.dismissed = True
                return
            if not self._fence.claimed and not await self._fence.adopt_late():
                return
            if not job.joined:
                with contextlib.suppress(LedgerUnavailable):
                    await report_joined(job, self._fence)
            if ending.cause is Cause.LOST:
                job.renewing.cancel()
            people = job.people.now()
            if ending is ROOM_CLOSED:  # LiveKit's list is right; it reports a leaving late
                people = People(present=0, left_ago_s=people.left_ago_s or 0.0)
            tell = functools.partial(job.departure.tell, ending, dispatch=self._fence.dispatch)
            told = await tell(people, in_room=in_room)
            while told is Told.UNTOLD and job.ctx.room.isconnected():
                await asyncio.sleep(RENEW_S)
                told = await tell(job.people.now(), in_room=True)
        if told is Told.LEAVING:
            job.leaving = ending
            # LiveKit reports up to 3 s late that a person has left; until then they are present.
            job.people_had_left = people.present == 0 and people.left_ago_s is not None
            job.news.set()
        elif told is Told.CAME_BACK:
            job.withdraw("its people are served by another")
        else:
            job.dismissed = told is Told.OVER

    async def _gone(self, ending: Ending) -> None:
        """Tell that the room is left, after it was told that it would be."""
        job = self._job
        with contextlib.suppress(LedgerUnavailable), tracing.inside(job.session_span):
            done = await job.store.run(job.departure.left(ending.reason))
            job.departure.counted = done.applied
            job.dismissed = True
