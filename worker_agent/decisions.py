"""Decide whether an agent server takes a job, and for which reason.

Pure functions of the offer, of the agent server and of the ledger's answer to the claim.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from livekit.protocol.agent import Job

from dispatcher.domain.job_attributes import (
    CLIENT_ID,
    CONTAINER,
    DELEGATED,
    DISPATCH_ID,
    GENERATION,
    REQUEST_TYPE,
    REQUESTED_AT_MS,
    TRACEPARENT,
)
from dispatcher.domain.models import DispatchRef, State
from dispatcher.ledger.dispatches import Advanced
from dispatcher.ledger.keys import is_dispatch_id
from dispatcher.observability.state_changes import log_fields, span_attributes
from dispatcher.observability.tracing import Value


class Reason(StrEnum):
    """The reason of an accept or a reject."""

    CLAIMED = "claimed"
    ADOPTED = "adopted"
    DELEGATED = "delegated"
    NOT_OURS = "not_dispatched_by_usher"
    WRONG_CONTAINER = "wrong_container"
    WRONG_CLIENT = "wrong_client"
    FULL = "full"
    STALE = "stale_generation"
    SECOND_JOB = "second_job"
    NOT_WANTED = "dispatch_not_open"
    UNKNOWN = "unknown_dispatch"
    OCCUPIED = "room_served_by_another_dispatch"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    DECLINED = "declined_by_program"  # by the program's own `on_request`
    CANNOT_START = "processes_cannot_start"


# Reasons that hold for this agent server only: LiveKit is to offer the job to the next one.
_ELSEWHERE: Final = frozenset(
    {
        Reason.WRONG_CONTAINER,
        Reason.WRONG_CLIENT,
        Reason.FULL,
        Reason.LEDGER_UNAVAILABLE,
        Reason.CANNOT_START,
    }
)


@dataclass(frozen=True, kw_only=True)
class Offer(DispatchRef):
    """A job as LiveKit offers it, with what our dispatcher has put into its attributes."""

    job_id: str
    participant_count: int
    request_type: str
    dispatch_id: str = ""
    generation: int = 0
    client_id: str = ""
    container: str = ""
    agent_metadata: str = field(default="", repr=False)
    requested_at_ms: int = 0

    @property
    def delegated(self) -> bool:
        """True when LiveKit offers it by a participant's token, not because we have asked."""
        return self.request_type == DELEGATED

    @property
    def log_fields(self) -> dict[str, object]:
        """The fields of every line of the log about this job."""
        return {**log_fields(self), "generation": self.generation, "job_id": self.job_id}

    @property
    def span_attributes(self) -> dict[str, Value]:
        """The attributes of every span about this job."""
        return {**span_attributes(self), "usher.job_id": self.job_id}

    @property
    def disowned(self) -> Offer:
        """The same job without the dispatch and client that it names, for a forged one."""
        return replace(
            self,
            request_type="forged",
            dispatch_id="",
            generation=0,
            client_id="",
            container="",
            requested_at_ms=0,
            traceparent="",
        )


@dataclass(frozen=True, kw_only=True)
class AgentServerIdentity:
    """An agent server's names and the client that it serves (an empty client id: all)."""

    agent_server_id: str
    agent_name: str
    container: str
    client_id: str
    slots: int
    deployment: str = ""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """An answer to LiveKit, with its reason. `terminate`: no other agent server is to be asked."""

    accept: bool
    reason: Reason
    terminate: bool = False


def reject(reason: Reason) -> Decision:
    """Make a reject; it is final unless another agent server could take the job."""
    return Decision(accept=False, reason=reason, terminate=reason not in _ELSEWHERE)


def read_offer(job: Job) -> Offer:
    """Read the offer that a job is; one that our dispatcher has not made has no dispatch id."""
    attributes: Mapping[str, str] = job.attributes
    generation = attributes.get(GENERATION, "")
    requested_at_ms = attributes.get(REQUESTED_AT_MS, "")
    ours = is_dispatch_id(attributes.get(DISPATCH_ID, "")) and generation.isdecimal()
    return Offer(
        job_id=job.id,
        room_name=job.room.name,
        agent_name=job.agent_name,
        participant_count=job.room.num_participants,
        request_type=attributes.get(REQUEST_TYPE, "dispatch") if ours else "foreign",
        dispatch_id=attributes[DISPATCH_ID] if ours else "",
        generation=int(generation) if ours else 0,
        client_id=attributes.get(CLIENT_ID, "") if ours else "",
        container=attributes.get(CONTAINER, "") if ours else "",
        agent_metadata=job.metadata,
        deployment=job.deployment,
        requested_at_ms=int(requested_at_ms) if requested_at_ms.isdecimal() else 0,
        traceparent=attributes.get(TRACEPARENT, "") if ours else "",
    )


def decide(
    offer: Offer, server: AgentServerIdentity, *, used_slots: int, cannot_start: bool = False
) -> Decision:
    """Decide what can be decided without the ledger; a job of ours still needs the claim.

    `cannot_start`: no process for a job can be started on this server.
    """
    if cannot_start:
        return reject(Reason.CANNOT_START)
    if used_slots >= server.slots:
        return reject(Reason.FULL)
    if not offer.dispatch_id:
        return Decision(accept=True, reason=Reason.NOT_OURS)
    if server.client_id and offer.client_id != server.client_id:
        return reject(Reason.WRONG_CLIENT)
    if offer.container and offer.container != server.container:
        return reject(Reason.WRONG_CONTAINER)
    return Decision(accept=True, reason=Reason.CLAIMED)


def decide_claim(offer: Offer, claim: Advanced, *, reason: Reason = Reason.CLAIMED) -> Decision:
    """Decide by the ledger's answer to the claim; `reason` is that of an accept."""
    if claim.outcome == "unknown":
        return reject(Reason.UNKNOWN)
    if claim.outcome == "stale":
        return reject(Reason.STALE)
    same_job = claim.job_id == offer.job_id
    if claim.moved or (same_job and claim.state in (State.ACCEPTED, State.JOINED)):
        return Decision(accept=True, reason=reason)
    return reject(Reason.NOT_WANTED if same_job or not claim.job_id else Reason.SECOND_JOB)
