"""The steps by which an agent server and its jobs change a dispatch's record.

The decisions are in other modules (`decisions.py`, `ending.py`); here is what each one writes.
"""

from __future__ import annotations

from typing import Final

from dispatcher.domain.agent_losses import CRASHED
from dispatcher.domain.metrics import AgentCounts
from dispatcher.domain.models import FailureReason
from dispatcher.domain.state_machine import (
    ACCEPTED,
    AGENT_CONNECTED,
    AGENT_CRASHED,
    AGENT_LEAVING,
    AGENT_LEFT,
    CAME_BACK,
    FAILED,
    JOINED,
    NEXT_GENERATION,
    REJECTED,
)
from dispatcher.ledger import admission, celery_messages, dispatches, leases
from dispatcher.ledger.advance import Advance, Before, Counted, Provided, Times
from dispatcher.ledger.dispatches import Advanced
from dispatcher.ledger.leases import Renewal
from dispatcher.ledger.step import Step
from worker_agent.decisions import AgentServerIdentity, Offer, Reason
from worker_agent.ending import Ending, People

# A verification hears of the join within a second, as a rule; after a worker's death it does not,
# and the sweeper looks.
CLAIM_DUE_S: Final = 3.0
# The next attempt comes at once after a first crash, then after so much longer each time.
_PAUSES_S: Final = (0.0, 1.0, 2.0, 4.0)
_WAKE_GRACE_S: Final = 1.0
_GIVEN_UP_PAUSE_S: Final = 1.0


def claim(
    offer: Offer,
    server: AgentServerIdentity,
    *,
    offered_ago_s: float,
    not_after_ms: float | None,
    counts: AgentCounts,
) -> Step[Advanced]:
    """Claim the dispatch for the offered job, unless the ledger's clock is past `not_after_ms`."""
    names = {"job_id": offer.job_id, "agent_server_id": server.agent_server_id}
    return dispatches.advance(
        Advance(
            offer,
            ACCEPTED,
            before=Before("offered", offered_ago_s=offered_ago_s),
            provided=Provided(not_after_ms=not_after_ms),
            due_in_s=CLAIM_DUE_S,
            fields={**names, "agent_container": server.container},
            detail={**names, "container": server.container, "reason": Reason.CLAIMED},
            counted=Counted(agents=counts),
            inflight=admission.CLAIMED,
        )
    )


def rejected(offer: Offer, server: AgentServerIdentity, reason: Reason) -> Step[Advanced]:
    """Note that this agent server does not take the offered job, and that another one may."""
    return dispatches.advance(
        Advance(
            offer,
            REJECTED,
            before=Before("offered"),
            due_in_s=CLAIM_DUE_S,
            attempt={"reason": reason},
            inflight=admission.SENT,
            detail={
                "job_id": offer.job_id,
                "agent_server_id": server.agent_server_id,
                "container": server.container,
                "reason": reason,
            },
        )
    )


def not_assigned(offer: Offer) -> Step[Advanced]:
    """End a claim when LiveKit has not assigned its job, so that the next attempt need not wait."""
    return dispatches.advance(
        Advance(
            offer,
            NEXT_GENERATION,
            due_in_s=0.0,
            attempt={"outcome": "given_up", "reason": "assignment_timeout"},
            detail={"job_id": offer.job_id, "reason": "LiveKit did not assign the job"},
        )
    )


def declined(
    offer: Offer, message: str, *, retention_s: int, before: Before | None = None
) -> Step[Advanced]:
    """End the record as failed, because the agent program itself does not want the job."""
    code = f"{FailureReason.REJECTED}: {Reason.DECLINED}"
    return dispatches.advance(
        Advance(
            offer,
            FAILED,
            before=before,
            fields={"failure_reason": code, "failure_message": message},
            attempt={"outcome": "failed", "reason": Reason.DECLINED},
            detail={"job_id": offer.job_id, "reason": code, "message": message},
            times=Times(retention_s=retention_s),
        )
    )


def starting(offer: Offer) -> Step[Renewal]:
    """Renew for a job that has not connected, and cannot say which people are in its room."""
    return leases.renew(
        offer, job_id=offer.job_id, people=-1, abandon_after_s=0, deserted_after_s=0
    )


def connected(
    offer: Offer, agent_identity: str, *, counts: AgentCounts, verify: bool
) -> Step[Advanced]:
    """Note that the job's agent is in its room; `verify`: and have a worker look at once."""
    return dispatches.advance(
        Advance(
            offer,
            AGENT_CONNECTED,
            fields={"agent_identity": agent_identity},
            detail={"agent_identity": agent_identity},
            counted=Counted(agents=counts, once=f"joined:{offer.job_id}"),
            wake=celery_messages.verify(offer.dispatch_id, offer.room_name) if verify else None,
        )
    )


def joined_unseen(offer: Offer) -> Step[Advanced]:
    """Note that the agent has joined, by its own word: it leaves before a worker has seen it."""
    return dispatches.advance(
        Advance(
            offer,
            JOINED,
            fields={"failure_reason": "", "failure_message": ""},  # a former reason to wait
            attempt={"outcome": "joined"},
            detail={"by": "its agent"},
            times=Times(lease_s=leases.LEASE_S),
        )
    )


def leaving(offer: Offer, ending: Ending, people: People) -> Step[Advanced]:
    """Note that the agent answers no more and is about to leave, so that the room is free."""
    return dispatches.advance(
        Advance(
            offer,
            AGENT_LEAVING,
            fields={"left_by": ending.cause},
            detail={"job_id": offer.job_id, "reason": ending.reason},
            times=Times(lease_s=leases.LEASE_S),
            provided=Provided(unless_asked_for_s=people.asked_within_s),
        )
    )


def left(
    offer: Offer,
    reason: str,
    people: People | None,
    *,
    counts: AgentCounts,
    retention_s: int,
) -> Step[Advanced]:
    """End the record, unless a caller has asked since the people have left."""
    return dispatches.advance(
        Advance(
            offer,
            AGENT_LEFT,
            detail={"job_id": offer.job_id, "reason": reason},
            counted=Counted(agents=counts),
            times=Times(retention_s=retention_s),
            provided=Provided(unless_asked_for_s=None if people is None else people.asked_within_s),
        )
    )


def came_back(offer: Offer, ending: Ending, *, counts: AgentCounts) -> Step[Advanced]:
    """Ask for the next generation: people are there, and this agent no longer answers."""
    return dispatches.advance(
        Advance(
            offer,
            CAME_BACK,
            due_in_s=_WAKE_GRACE_S,
            attempt={"outcome": "left", "reason": ending.reason},
            detail={"job_id": offer.job_id, "reason": ending.reason},
            counted=Counted(agents=counts),
            wake=celery_messages.dispatch(offer.dispatch_id, offer.room_name),
            times=Times(deadline_as_before=True),
        )
    )


def given_up(offer: Offer, what: str) -> Step[Advanced]:
    """End an attempt for which the agent program is not to blame; another one follows soon."""
    return dispatches.advance(
        Advance(
            offer,
            NEXT_GENERATION,
            due_in_s=_GIVEN_UP_PAUSE_S,
            attempt={"outcome": "given_up", "reason": FailureReason.JOIN_TIMEOUT},
            detail={
                "job_id": offer.job_id,
                "reason": FailureReason.JOIN_TIMEOUT,
                "message": f"{what}, before its agent was in the room",
            },
        )
    )


def crashed(offer: Offer, what: str, *, crashes: int) -> Step[Advanced]:
    """End an attempt whose job raised or died before its agent was in the room.

    `what` is for people; `crashes` is how many attempts in a row have ended so before it. The
    first is followed by the next attempt at once.
    """
    pause_s = _PAUSES_S[min(crashes, len(_PAUSES_S) - 1)]
    message = (
        f"{what}, before its agent was in the room; look for job {offer.job_id} in the log of its "
        "agent server"
    )
    return dispatches.advance(
        Advance(
            offer,
            AGENT_CRASHED,
            due_in_s=pause_s or _WAKE_GRACE_S,
            fields={"failure_reason": FailureReason.AGENT_CRASHED, "failure_message": message},
            attempt={"outcome": CRASHED, "reason": FailureReason.AGENT_CRASHED},
            detail={"job_id": offer.job_id, "reason": what},
            wake=None if pause_s else celery_messages.dispatch(offer.dispatch_id, offer.room_name),
        )
    )
