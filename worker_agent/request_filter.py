"""Does this agent server take this job, and why, or why not?

The decision is a pure function of the request, of the agent server and of the ledger's answer to
the claim. Around it: claim, answer LiveKit, log, count. LiveKit itself gets no reason with a
reject, so reasons travel through the log and the ledger.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from livekit.agents import AssignmentTimeoutError, JobRequest

from dispatcher import ledger
from dispatcher.attributes import CLIENT_ID, CONTAINER, DISPATCH_ID, GENERATION, REQUEST_TYPE
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import Advanced, agent_metrics_key
from dispatcher.models import ACCEPTED, REJECTED, DispatchRef, State
from dispatcher.store import AsyncLedger
from worker_agent import metrics

logger = logging.getLogger(__name__)

# A verification that looks every half second and gives up after five needs no wake-up before this.
CLAIM_DUE_S: Final = 7.0


class Reason(StrEnum):
    """Why a job was accepted or rejected."""

    CLAIMED = "claimed"
    NOT_OURS = "not_dispatched_by_usher"
    WRONG_CONTAINER = "wrong_container"
    WRONG_CLIENT = "wrong_client"
    FULL = "full"
    STALE = "stale_generation"
    SECOND_JOB = "second_job"
    NOT_WANTED = "dispatch_not_open"
    UNKNOWN = "unknown_dispatch"
    LEDGER_UNAVAILABLE = "ledger_unavailable"


# A reject that is true of this agent server only: LiveKit shall offer the job to the next one.
_ELSEWHERE: Final = frozenset(
    {Reason.WRONG_CONTAINER, Reason.WRONG_CLIENT, Reason.FULL, Reason.LEDGER_UNAVAILABLE}
)


@dataclass(frozen=True, kw_only=True)
class Offer:
    """A job as LiveKit offers it, with what our dispatcher has put into its attributes."""

    job_id: str
    room_name: str
    agent_name: str
    participant_count: int
    request_type: str
    dispatch_id: str = ""
    generation: int = 0
    client_id: str = ""
    container: str = ""

    @property
    def ref(self) -> DispatchRef:
        """The dispatch that this job is for."""
        return DispatchRef(
            dispatch_id=self.dispatch_id,
            client_id=self.client_id,
            room_name=self.room_name,
            agent_name=self.agent_name,
            generation=self.generation,
        )


@dataclass(frozen=True, kw_only=True)
class AgentServerIdentity:
    """Who the agent server is, and whom it serves (an empty client id: everybody)."""

    agent_server_id: str
    agent_name: str
    container: str
    client_id: str
    slots: int


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What to answer LiveKit, and why. `terminate`: no other agent server shall be asked."""

    accept: bool
    reason: Reason
    terminate: bool = False


def _reject(reason: Reason) -> Decision:
    return Decision(accept=False, reason=reason, terminate=reason not in _ELSEWHERE)


def read_offer(
    *,
    job_id: str,
    room_name: str,
    agent_name: str,
    participant_count: int,
    attributes: Mapping[str, str],
) -> Offer:
    """The offer from a job's parts; a job that our dispatcher has not made has no dispatch id."""
    generation = attributes.get(GENERATION, "")
    ours = bool(attributes.get(DISPATCH_ID)) and generation.isdecimal()
    return Offer(
        job_id=job_id,
        room_name=room_name,
        agent_name=agent_name,
        participant_count=participant_count,
        request_type=attributes.get(REQUEST_TYPE, "dispatch") if ours else "foreign",
        dispatch_id=attributes[DISPATCH_ID] if ours else "",
        generation=int(generation) if ours else 0,
        client_id=attributes.get(CLIENT_ID, "") if ours else "",
        container=attributes.get(CONTAINER, "") if ours else "",
    )


def decide(offer: Offer, server: AgentServerIdentity, *, used_slots: int) -> Decision:
    """What can be said without the ledger; accepting one of our own still needs the claim."""
    if used_slots >= server.slots:
        return _reject(Reason.FULL)
    if not offer.dispatch_id:
        return Decision(accept=True, reason=Reason.NOT_OURS)
    if server.client_id and offer.client_id != server.client_id:
        return _reject(Reason.WRONG_CLIENT)
    if offer.container and offer.container != server.container:
        return _reject(Reason.WRONG_CONTAINER)
    return Decision(accept=True, reason=Reason.CLAIMED)


def decide_claim(offer: Offer, claim: Advanced) -> Decision:
    """What the ledger's answer to the claim means."""
    if claim.outcome == "unknown":
        return _reject(Reason.UNKNOWN)
    if claim.outcome == "stale":
        return _reject(Reason.STALE)
    same_job = claim.job_id == offer.job_id
    if claim.moved or (same_job and claim.state in (State.ACCEPTED, State.JOINED)):
        return Decision(accept=True, reason=Reason.CLAIMED)
    return _reject(Reason.NOT_WANTED if same_job or not claim.job_id else Reason.SECOND_JOB)


class RequestFilter:
    """The `on_request` of an agent server."""

    def __init__(self, server: AgentServerIdentity, store: AsyncLedger) -> None:
        self._server = server
        self._store = store
        self._accepting = 0
        self.active_jobs = 0  # kept up to date by the agent server's load report

    @property
    def used_slots(self) -> int:
        """Sessions that run, and jobs that have been accepted and not started yet."""
        return self.active_jobs + self._accepting

    async def __call__(self, request: JobRequest) -> None:
        """Answer LiveKit's offer. livekit-agents calls this for every job."""
        offer = read_offer(
            job_id=request.id,
            room_name=request.room.name,
            agent_name=request.agent_name,
            participant_count=request.room.num_participants,
            attributes=request.job.attributes,
        )
        decision = decide(offer, self._server, used_slots=self.used_slots)
        self._accepting += 1
        try:
            if decision.reason is Reason.CLAIMED:
                decision = await self._claim(offer)
            self._log(offer, decision)
            if decision.accept:
                await self._accept(request, offer, decision)
            else:
                await request.reject(terminate=decision.terminate)
                await self._report_reject(offer, decision)
        finally:
            self._accepting -= 1

    def _metrics_key(self, offer: Offer) -> str:
        return agent_metrics_key(offer.client_id, self._server.container, self._server.agent_name)

    async def _claim(self, offer: Offer) -> Decision:
        server = self._server
        step = ledger.advance(
            offer.ref,
            ACCEPTED,
            before="offered",
            due_in_s=CLAIM_DUE_S,
            fields={
                "job_id": offer.job_id,
                "agent_server_id": server.agent_server_id,
                "agent_container": server.container,
            },
            detail={
                "job_id": offer.job_id,
                "agent_server_id": server.agent_server_id,
                "container": server.container,
                "reason": Reason.CLAIMED,
            },
            metrics=metrics.accepted(Reason.CLAIMED),
            metrics_key=self._metrics_key(offer),
        )
        try:
            return decide_claim(offer, await self._store.run(step))
        except LedgerUnavailable:
            # Without the ledger nobody can say whether this agent would be the second.
            return _reject(Reason.LEDGER_UNAVAILABLE)

    async def _accept(self, request: JobRequest, offer: Offer, decision: Decision) -> None:
        if decision.reason is Reason.NOT_OURS:
            await self._count(offer, metrics.accepted(decision.reason))
            await request.accept()
            return
        try:
            await request.accept(
                attributes={DISPATCH_ID: offer.dispatch_id, GENERATION: str(offer.generation)}
            )
        except AssignmentTimeoutError:
            # LiveKit has given the job to nobody; verification finds no agent and goes on.
            logger.warning("LiveKit did not assign the job", extra={"job_id": offer.job_id})
            await self._count(offer, metrics.ASSIGNMENT_TIMED_OUT)

    async def _report_reject(self, offer: Offer, decision: Decision) -> None:
        await self._count(offer, metrics.rejected(decision.reason))
        if not offer.dispatch_id or decision.terminate:
            return
        reject = ledger.advance(
            offer.ref,
            REJECTED,
            before="offered",
            due_in_s=CLAIM_DUE_S,
            attempt={"reason": decision.reason},
            detail={
                "job_id": offer.job_id,
                "agent_server_id": self._server.agent_server_id,
                "container": self._server.container,
                "reason": decision.reason,
            },
        )
        with contextlib.suppress(LedgerUnavailable):
            await self._store.run(reject)

    async def _count(self, offer: Offer, increments: Mapping[str, int]) -> None:
        with contextlib.suppress(LedgerUnavailable):
            await self._store.run(ledger.count(self._metrics_key(offer), increments))

    def _log(self, offer: Offer, decision: Decision) -> None:
        logger.info(
            "job accepted" if decision.accept else "job rejected",
            extra={
                "room": offer.room_name,
                "container": self._server.container,
                "client_id": offer.client_id,
                "request_type": offer.request_type,
                "participant_count": offer.participant_count,
                "decision": "accept" if decision.accept else "reject",
                "reason": str(decision.reason),
                "dispatch_id": offer.dispatch_id,
                "generation": offer.generation,
                "job_id": offer.job_id,
            },
        )
