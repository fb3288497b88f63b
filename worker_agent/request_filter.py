"""Answer LiveKit's offers: claim, accept or reject, log, count.

The decision is in `decisions.py`, the claim in `claims.py`. LiveKit itself gets no reason with a
reject, so reasons travel through the log and the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager

from livekit.agents import AssignmentTimeoutError, JobRequest

from dispatcher.domain.job_attributes import DISPATCH_ID, GENERATION
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.guarding import Guard, Work
from dispatcher.ledger.leases import RENEW_S
from dispatcher.observability import tracing
from worker_agent import steps
from worker_agent.claims import Claims
from worker_agent.decisions import (
    AgentServerIdentity,
    Decision,
    Offer,
    Reason,
    decide,
    read_offer,
    reject,
)
from worker_agent.metrics import ASSIGNMENT_TIMED_OUT, AgentMetrics, answered
from worker_agent.tenants import Tenants

logger = logging.getLogger(__name__)


def _traced(offer: Offer) -> AbstractContextManager[tracing.Span]:
    """Begin a span about an offer, below the call to LiveKit that it comes from."""
    return tracing.span(
        "offer",
        parent=offer.traceparent,
        kind=tracing.SpanKind.CONSUMER,
        attributes=offer.span_attributes,
    )


def _span_fields(decision: Decision) -> dict[str, str]:
    return {
        "usher.decision": "accept" if decision.accept else "reject",
        "usher.reason": str(decision.reason),
    }


class RequestFilter:
    """The `on_request` of an agent server."""

    def __init__(self, server: AgentServerIdentity, store: AsyncLedger) -> None:
        self._server = server
        self._store = store
        self._guard = Guard(store)
        self.metrics = AgentMetrics(server, store)
        self.tenants = Tenants(store, own_client_id=server.client_id)
        self._claims = Claims(server, store, self.metrics, self.tenants)
        self.clock = self._claims.clock  # set by the agent server's reports
        self._accepting: set[str] = set()
        # The ids of the running jobs; set by the agent server.
        self.active_jobs: Callable[[], Iterable[str]] = tuple
        # Whether LiveKit has given an accepted job to this server: its process is being started.
        self.is_assigned: Callable[[str], bool] = lambda _: False
        self.changed: Callable[[], None] = lambda: None  # called when slots are taken
        self.cannot_start = False  # a process for a job: set by `processes.py`

    @property
    def used_slots(self) -> int:
        """The number of `jobs`."""
        return len(self.jobs())

    def jobs(self) -> set[str]:
        """Return the ids of jobs that run or are being accepted; one that just starts is both."""
        return self._accepting.union(self.active_jobs())

    async def __call__(self, request: JobRequest, *, offered_at: float | None = None) -> None:
        """Answer LiveKit's offer. livekit-agents calls this for every job.

        `offered_at` is when it has come, by the monotonic clock, if that is not just now.
        """
        offer = read_offer(request.job)
        with _traced(offer) as span:
            await self._answer(request, offer, offered_at or time.monotonic(), span)

    async def _answer(
        self, request: JobRequest, offer: Offer, offered_at: float, span: tracing.Span
    ) -> None:
        if await self._is_forged(offer):
            decision, offer = reject(Reason.WRONG_CLIENT), offer.disowned
        else:
            decision = decide(
                offer, self._server, used_slots=self.used_slots, cannot_start=self.cannot_start
            )
        if decision.accept:
            self._accepting.add(offer.job_id)
        try:
            if decision.reason is Reason.CLAIMED:
                decision = await self._claims.claim(offer, offered_at)
            else:
                self.metrics.note(offer.client_id, answered(decision))
            if decision.reason is not Reason.DELEGATED:  # a delegated job means that Redis is away
                await self.metrics.flush()  # before LiveKit is answered: survives a kill
            self._log(offer, decision)
            span.set_attributes(
                {"usher.container": self._server.container, **_span_fields(decision)}
            )
            self.changed()
            if decision.accept:
                await self._accept(request, offer, decision)
            else:
                await request.reject(terminate=decision.terminate)
                await self._report_reject(offer, decision)
        finally:
            self._accepting.discard(offer.job_id)
            await self.metrics.flush()

    async def _is_forged(self, offer: Offer) -> bool:
        """True when the job claims a dispatch of a client that has another LiveKit server.

        It is refused, and nothing that it claims gets into a record or into numbers.
        """
        if not offer.dispatch_id:
            return False
        with contextlib.suppress(LedgerUnavailable):  # then nothing is claimed either
            if not await self.tenants.here(offer.client_id):
                logger.warning(
                    "a job claims to be for a client whose LiveKit server is another one; refused",
                    extra=offer.log_fields,
                )
                return True
        return False

    async def declined(self, offer: Offer, *, final: bool) -> None:
        """Note that the program's own `on_request` did not want the job. Nothing was claimed.

        When that is `final` no other agent server is asked, now or later, and the session has
        failed.
        """
        if await self._is_forged(offer):
            offer = offer.disowned
        decision = Decision(accept=False, reason=Reason.DECLINED)
        self.metrics.note(offer.client_id, answered(decision))
        await self.metrics.flush()
        self._log(offer, decision)
        with _traced(offer) as span, contextlib.suppress(LedgerUnavailable):
            span.set_attributes(_span_fields(decision))
            if not final:
                await self._report_reject(offer, decision)
            elif offer.dispatch_id:
                message = (
                    "the agent program's own on_request has rejected the job, which is final; with "
                    "reject(terminate=False) another agent server would have been asked"
                )
                step = steps.declined(
                    offer, message, retention_s=self._store.retention_s, offered_ago_s=0.0
                )
                await self._store.run(step)

    async def _accept(self, request: JobRequest, offer: Offer, decision: Decision) -> None:
        if decision.reason is Reason.NOT_OURS:
            await request.accept()
            return
        waiting = asyncio.create_task(self._say_that_it_starts(offer))
        try:
            with tracing.span("accept", kind=tracing.SpanKind.CLIENT):
                await request.accept(
                    attributes={DISPATCH_ID: offer.dispatch_id, GENERATION: str(offer.generation)}
                )
        except AssignmentTimeoutError:
            # LiveKit has dropped the job; verification finds no agent and goes on.
            logger.warning("LiveKit did not assign the job", extra=offer.log_fields)
            self.metrics.note(offer.client_id, ASSIGNMENT_TIMED_OUT)
            # The claim has come to nothing: the next attempt need not wait for its time-out.
            with contextlib.suppress(LedgerUnavailable):
                await self._store.run(steps.not_assigned(offer))
        except Exception:
            what = "its agent server has stopped"
            if self.is_assigned(offer.job_id):  # livekit-agents has tried three processes
                what = "no process of its agent server could start"
            with contextlib.suppress(LedgerUnavailable):
                await self._store.run(steps.given_up(offer, what))
            raise
        finally:
            waiting.cancel()

    async def _say_that_it_starts(self, offer: Offer) -> None:
        """Renew the lease of a job while its process starts; the running process renews itself."""
        while True:
            await asyncio.sleep(RENEW_S)
            if self.is_assigned(offer.job_id):
                with contextlib.suppress(LedgerUnavailable):
                    async with self._guard.one(Work.RENEW_STARTING):
                        await self._store.run(steps.starting(offer))

    async def _report_reject(self, offer: Offer, decision: Decision) -> None:
        if not offer.dispatch_id or decision.terminate:
            return
        with contextlib.suppress(LedgerUnavailable):
            await self._store.run(steps.rejected(offer, self._server, decision.reason))

    def _log(self, offer: Offer, decision: Decision) -> None:
        logger.info(
            "job accepted" if decision.accept else "job rejected",
            extra={
                **offer.log_fields,
                "container": self._server.container,
                "request_type": offer.request_type,
                "participant_count": offer.participant_count,
                "decision": "accept" if decision.accept else "reject",
                "reason": str(decision.reason),
            },
        )
