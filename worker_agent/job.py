"""One job of Usher's: what its fence, its lease and its farewell have in common."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, Final

from livekit.agents import JobContext
from livekit.agents.utils.aio import TaskSet

from dispatcher.domain.metrics import AgentCounts
from dispatcher.ledger import keys, reports
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.observability import tracing
from dispatcher.settings import CommonSettings
from worker_agent import metrics
from worker_agent.decisions import Offer
from worker_agent.departure import Departure
from worker_agent.ending import Ending
from worker_agent.people import PeopleInRoom
from worker_agent.settings import GuardSettings
from worker_agent.starting import SignOfLife

logger = logging.getLogger(__name__)

# Leaving a room takes milliseconds; LiveKit may be away.
LEAVE_TIMEOUT_S: Final = 2.0


class Job:
    """A job and what has become of it; belongs to the job's event loop.

    `renewing`: the task that keeps its lease, from the moment at which its agent has connected.
    `joined`: the ledger knows that it has. `dismissed`: another job or generation serves the
    dispatch, or the ledger knows that it is over. `surplus`: it is leaving for the former.
    `leaving`: what has ended its session while it is still in the room; `people_had_left`: its
    people were gone by then.
    """

    def __init__(
        self,
        ctx: JobContext,
        offer: Offer,
        store: AsyncLedger,
        *,
        common: CommonSettings,
        guard: GuardSettings,
    ) -> None:
        self.ctx = ctx
        self.offer = offer
        self.store = store
        self.common = common
        self.guard = guard
        self.renewing: asyncio.Task[None] | None = None
        self.joined = False
        self.dismissed = False
        self.surplus = False
        self.leaving: Ending | None = None
        self.people_had_left = False
        self._metrics_key = keys.agent_metrics(offer.client_id, guard.container, offer.agent_name)
        self.departure = Departure(store, offer, self.counts(metrics.LEFT))
        self.people = PeopleInRoom(ctx.room)
        self.sign_of_life = SignOfLife(offer, unwanted=lambda: self.withdraw("not connecting"))
        self.news = asyncio.Event()  # wakes the lease: there is something to tell
        self._tasks = TaskSet()
        self.joining_span = self.begin_span("join")
        self.session_span = tracing.NO_SPAN

    @property
    def connected(self) -> bool:
        """True once its agent has been in the room."""
        return self.renewing is not None

    def begin_span(self, name: str) -> tracing.Span:
        """Begin a span of this job, in the trace of its dispatch."""
        offer = self.offer
        return tracing.begin(name, parent=offer.traceparent, attributes=offer.span_attributes)

    def counts(self, increments: Mapping[str, int]) -> AgentCounts:
        """Make increments of the counters of this job's client, container and agent name."""
        return AgentCounts(key=self._metrics_key, increments=increments)

    async def count(self, batch: int, increments: Mapping[str, int]) -> None:
        """Count without changing the record, which may be another job's by now."""
        counts = [self.counts(increments)]
        await self.store.run(reports.count(self.offer.job_id, batch, counts))

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` in a task of the job's."""
        return self._tasks.create_task(work)

    def withdraw(self, what: str) -> None:
        """Leave, because another job or generation serves this dispatch now."""
        if self.surplus:
            return
        self.dismissed = self.surplus = True
        self.sign_of_life.stop()
        logger.warning(
            "surplus agent, %s: this dispatch is over, or served by another job or generation",
            what,
            extra=self.offer.log_fields,
        )
        self.leave_at_once("surplus agent")

    def leave_at_once(self, reason: str) -> None:
        """End the job, and leave the room before livekit-agents has waited for the program."""
        self.ctx.shutdown(reason=reason)
        if self.connected:
            self.spawn(self._disconnect())

    async def _disconnect(self) -> None:
        with contextlib.suppress(Exception):  # whatever has become of the connection: it is over
            async with asyncio.timeout(LEAVE_TIMEOUT_S):
                await self.ctx.room.disconnect()
