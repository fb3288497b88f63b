"""Answer LiveKit's offers: claim, accept or reject, log, count.

The decision is in `offers.py`. LiveKit itself gets no reason with a reject, so reasons travel
through the log and the ledger.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractContextManager
from typing import Final

from livekit.agents import AssignmentTimeoutError, JobRequest

from dispatcher import client_servers, inflight, ledger, tracing
from dispatcher.advance import Advance, Before, Counted, Provided
from dispatcher.attributes import DISPATCH_ID, GENERATION
from dispatcher.errors import LedgerUnavailable
from dispatcher.guarding import Guard, Work
from dispatcher.leases import RENEW_S
from dispatcher.ledger import Advanced
from dispatcher.ledger_clock import LedgerClock
from dispatcher.models import ACCEPTED, NEXT_GENERATION, REJECTED
from dispatcher.step import Step
from dispatcher.store import AsyncLedger
from dispatcher.transitions import log_fields, span_attributes
from worker_agent.adoption import DELEGATED_CLAIM_S, Taker, adopt
from worker_agent.connecting import joining
from worker_agent.departure import declined, given_up
from worker_agent.metrics import ADOPTED, ASSIGNMENT_TIMED_OUT, AgentMetrics, answered
from worker_agent.offers import (
    AgentServerIdentity,
    Decision,
    Offer,
    Reason,
    decide,
    decide_claim,
    read_offer,
    reject,
)
from worker_agent.starting import starting
from worker_agent.tenants import Tenants

logger = logging.getLogger(__name__)

# Whoever verifies hears of the join within a second, as a rule; nobody does after a worker's death.
CLAIM_DUE_S: Final = 3.0
# Over connections that stay open: in a burst each claim would open one, which costs more than it.
CLAIMS_AT_ONCE: Final = 4


def offer_of(request: JobRequest) -> Offer:
    """The offer in livekit-agents' request."""
    return read_offer(
        job_id=request.id,
        room_name=request.room.name,
        agent_name=request.agent_name,
        participant_count=request.room.num_participants,
        attributes=request.job.attributes,
        metadata=request.job.metadata,
        deployment=request.job.deployment,
    )


def _traced(name: str, offer: Offer) -> AbstractContextManager[tracing.Span]:
    """What becomes of an offer, as a part of the call to LiveKit that it comes from."""
    attributes = {**span_attributes(offer.ref), "usher.job_id": offer.job_id}
    return tracing.span(name, parent=offer.traceparent, kind="consumer", attributes=attributes)


class RequestFilter:
    """The `on_request` of an agent server."""

    def __init__(
        self, server: AgentServerIdentity, store: AsyncLedger, *, retention_s: int = 86_400
    ) -> None:
        self._server = server
        self._store = store
        self._guard = Guard(store)
        self._retention_s = retention_s
        self.metrics = AgentMetrics(server, store)
        self.tenants = Tenants(store, own_client_id=server.client_id, server=client_servers.own())
        self.clock = LedgerClock()  # set by the agent server's reports
        self._accepting: set[str] = set()
        self._lines = asyncio.Semaphore(CLAIMS_AT_ONCE)
        # Ids of the jobs that run, as they are now: its agent server says so.
        self.active_jobs: Callable[[], Iterable[str]] = tuple
        # Whether LiveKit has given an accepted job to this server: its process is being started.
        self.is_assigned: Callable[[str], bool] = lambda _: False
        self.changed: Callable[[], None] = lambda: None  # called when slots are taken
        self.cannot_start = False  # a process for a job: set by `processes.py`

    @property
    def used_slots(self) -> int:
        """Sessions that run, and jobs that are being accepted; one that just starts is both."""
        return len(self._jobs())

    @property
    def may_begin(self) -> int:
        """How many more agents this process may have joining at the same time."""
        return joining.room_for(self._jobs())

    def _jobs(self) -> set[str]:
        return self._accepting.union(self.active_jobs())

    async def __call__(self, request: JobRequest, *, offered_at: float | None = None) -> None:
        """Answer LiveKit's offer. livekit-agents calls this for every job.

        `offered_at` is when it has come, by the monotonic clock, if that is not just now.
        """
        offer = offer_of(request)
        with _traced("offer", offer) as span:
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
            counted = False
            if decision.reason is Reason.CLAIMED and offer.delegated:
                decision = await self._adopt(offer)
            elif decision.reason is Reason.CLAIMED:
                decision, counted = await self._claim(offer, offered_at)
            if not counted:
                self.metrics.note(offer.client_id, answered(decision))
            if decision.reason is not Reason.DELEGATED:  # which is to say that Redis is away
                await self.metrics.flush()  # before anybody learns of it: a killed process has told
            self._log(offer, decision)
            span.set(
                {
                    "usher.container": self._server.container,
                    "usher.decision": "accept" if decision.accept else "reject",
                    "usher.reason": str(decision.reason),
                }
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
        """Whether the job claims a dispatch of a client whose LiveKit server is another one.

        It is refused, and nothing that it claims gets into anybody's record or numbers.
        """
        if not offer.dispatch_id:
            return False
        with contextlib.suppress(LedgerUnavailable):  # then nothing is claimed either
            if not await self.tenants.here(offer.client_id):
                logger.warning(
                    "a job claims to be for a client whose LiveKit server is another one; refused",
                    extra={**log_fields(offer.ref), "job_id": offer.job_id},
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
        with _traced("offer", offer) as span:
            span.set({"usher.decision": "reject", "usher.reason": str(decision.reason)})
            if final:
                await self._report_declined(offer)
            else:
                await self._report_reject(offer, decision)

    async def _report_declined(self, offer: Offer) -> None:
        if not offer.dispatch_id:
            return
        message = (
            "the agent program's own on_request has rejected the job, which is final; with "
            "reject(terminate=False) another agent server would have been asked"
        )
        step = declined(offer, message, retention_s=self._retention_s, before=Before("offered"))
        with contextlib.suppress(LedgerUnavailable):
            await self._store.run(step)

    async def _claim(self, offer: Offer, offered_at: float) -> tuple[Decision, bool]:
        """The decision, and whether the ledger has counted it already."""
        with tracing.span("claim"):
            return await self._claimed(offer, offered_at)

    async def _claimed(self, offer: Offer, offered_at: float) -> tuple[Decision, bool]:
        try:
            async with self._line():
                not_after_ms = self.clock.in_ms(self._store.timeout_s)
                claim = await self._store.run(self._claim_step(offer, offered_at, not_after_ms))
                if claim.outcome == "late":  # but heard in time: the clocks have been set
                    claim = await self._store.run(self._claim_step(offer, offered_at, None))
            decision = decide_claim(offer, claim)
            counted = claim.moved or (decision.accept and await self._is_counted(offer))
        except LedgerUnavailable:
            # Without the ledger nobody can say whether this agent would be the second.
            return reject(Reason.LEDGER_UNAVAILABLE), False
        if counted:
            self.metrics.granted(offer.client_id, offer.job_id, decision)
        return decision, counted

    @contextlib.asynccontextmanager
    async def _line(self) -> AsyncIterator[None]:
        """One of the connections that claims go over, after those who came before.

        Raises:
            LedgerUnavailable: they wait for Redis.
        """
        try:
            async with asyncio.timeout(self._store.timeout_s):
                await self._lines.acquire()
        except TimeoutError:
            raise LedgerUnavailable("Redis has not answered the claims before this one") from None
        try:
            yield
        finally:
            self._lines.release()

    def _claim_step(
        self, offer: Offer, offered_at: float, not_after_ms: float | None
    ) -> Step[Advanced]:
        server = self._server
        granted = Decision(accept=True, reason=Reason.CLAIMED)
        names = {"job_id": offer.job_id, "agent_server_id": server.agent_server_id}
        return ledger.advance(
            Advance(
                offer.ref,
                ACCEPTED,
                before=Before("offered", offered_ago_s=time.monotonic() - offered_at),
                provided=Provided(not_after_ms=not_after_ms),
                due_in_s=CLAIM_DUE_S,
                fields={**names, "agent_container": server.container},
                detail={**names, "container": server.container, "reason": Reason.CLAIMED},
                counted=Counted(agents=self.metrics.counts(offer.client_id, answered(granted))),
                inflight=inflight.CLAIMED,
            )
        )

    async def _is_counted(self, offer: Offer) -> bool:
        """Whether it was this very claim that has been carried out before, its answer lost."""
        if self.metrics.was_granted(offer.job_id):
            return False  # LiveKit offers that job once more
        dispatch = await self._store.run(ledger.read(offer.dispatch_id))
        return dispatch is not None and dispatch.agent_server_id == self._server.agent_server_id

    async def _adopt(self, offer: Offer) -> Decision:
        """Claim a job that LiveKit offers by a token; without the ledger take it as it is.

        A second agent is not to be feared then: LiveKit offers such a job once, when it creates the
        room. The session claims it as soon as the ledger answers.
        """
        try:
            async with asyncio.timeout(DELEGATED_CLAIM_S):
                if not await self.tenants.here(offer.client_id):
                    return reject(Reason.WRONG_CLIENT)
                return await adopt(
                    self._store,
                    offer,
                    Taker(
                        container=self._server.container,
                        agent_server_id=self._server.agent_server_id,
                    ),
                    counts=self.metrics.counts(offer.client_id, ADOPTED),
                    retention_s=self._retention_s,
                )
        except (LedgerUnavailable, TimeoutError):
            return Decision(accept=True, reason=Reason.DELEGATED)

    async def _accept(self, request: JobRequest, offer: Offer, decision: Decision) -> None:
        if decision.reason is Reason.NOT_OURS:
            await request.accept()
            return
        waiting = asyncio.create_task(self._say_that_it_starts(offer))
        try:
            with tracing.span("accept", kind="client"):
                await request.accept(
                    attributes={DISPATCH_ID: offer.dispatch_id, GENERATION: str(offer.generation)}
                )
        except AssignmentTimeoutError:
            # LiveKit has given the job to nobody; verification finds no agent and goes on.
            logger.warning(
                "LiveKit did not assign the job",
                extra={**log_fields(offer.ref), "job_id": offer.job_id},
            )
            self.metrics.note(offer.client_id, ASSIGNMENT_TIMED_OUT)
            await self._give_back(offer)
        except Exception:
            if self.is_assigned(offer.job_id):
                # livekit-agents has tried three processes, and none has started.
                step = given_up(offer, "no process of its agent server could start")
            else:
                step = given_up(offer, "its agent server has stopped")
            with contextlib.suppress(LedgerUnavailable):
                await self._store.run(step)
            raise
        finally:
            waiting.cancel()

    async def _say_that_it_starts(self, offer: Offer) -> None:
        """Renew for a job whose process is being started; once it runs it says so itself."""
        while True:
            await asyncio.sleep(RENEW_S)
            if self.is_assigned(offer.job_id):
                with contextlib.suppress(LedgerUnavailable):
                    async with self._guard.one(Work.RENEW_STARTING):
                        await self._store.run(starting(offer))

    async def _give_back(self, offer: Offer) -> None:
        """End a claim that came to nothing, so that the next attempt need not wait."""
        if not offer.dispatch_id:
            return
        step = ledger.advance(
            Advance(
                offer.ref,
                NEXT_GENERATION,
                due_in_s=0.0,
                attempt={"outcome": "given_up", "reason": "assignment_timeout"},
                detail={"job_id": offer.job_id, "reason": "LiveKit did not assign the job"},
            )
        )
        with contextlib.suppress(LedgerUnavailable):
            await self._store.run(step)

    async def _report_reject(self, offer: Offer, decision: Decision) -> None:
        if not offer.dispatch_id or decision.terminate:
            return
        rejected = ledger.advance(
            Advance(
                offer.ref,
                REJECTED,
                before=Before("offered"),
                due_in_s=CLAIM_DUE_S,
                attempt={"reason": decision.reason},
                inflight=inflight.SENT,
                detail={
                    "job_id": offer.job_id,
                    "agent_server_id": self._server.agent_server_id,
                    "container": self._server.container,
                    "reason": decision.reason,
                },
            )
        )
        with contextlib.suppress(LedgerUnavailable):
            await self._store.run(rejected)

    def _log(self, offer: Offer, decision: Decision) -> None:
        logger.info(
            "job accepted" if decision.accept else "job rejected",
            extra={
                **log_fields(offer.ref),
                "container": self._server.container,
                "request_type": offer.request_type,
                "participant_count": offer.participant_count,
                "decision": "accept" if decision.accept else "reject",
                "reason": str(decision.reason),
                "generation": offer.generation,
                "job_id": offer.job_id,
            },
        )
