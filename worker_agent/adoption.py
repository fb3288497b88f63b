"""Adopt a dispatch: claim it for an agent that is at work without a claim in the ledger.

LiveKit brings an agent by a participant's token while Redis is away, and Redis may lose the record
of a dispatch while its agent is at work. In both cases the agent claims the dispatch once the
ledger answers: the record is its own then, or another job's, and then the agent must leave.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Final

from dispatcher.domain.metrics import AgentCounts
from dispatcher.domain.models import RememberedDispatch, State
from dispatcher.domain.state_machine import ADOPTED
from dispatcher.ledger import admission, dispatches, reports, restoring
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.dispatches import Advanced
from dispatcher.ledger.restoring import Restored
from dispatcher.ledger.step import Step
from worker_agent.decisions import Decision, Offer, Reason, decide_claim, reject
from worker_agent.metrics import ADOPTION_BATCH

# The agent does not know its client's deadline. Seeing an agent that is there takes a second.
DEADLINE_MS: Final = 20_000
# LiveKit waits a second for an agent server's answer, and a person for their agent.
DELEGATED_CLAIM_S: Final = 0.3


@dataclass(frozen=True, kw_only=True)
class Taker:
    """The agent that adopts a dispatch; what it does not know of itself is empty."""

    container: str
    agent_server_id: str = ""
    agent_identity: str = ""


async def adopt(store: AsyncLedger, offer: Offer, taker: Taker, *, counts: AgentCounts) -> Decision:
    """Claim the dispatch of `offer` for its job, writing its record if there is none.

    `counts` is counted when the claim is new.

    Raises:
        LedgerUnavailable: Redis did not answer.
    """
    claim = await store.run(_claim(offer, taker, counts))
    if claim.outcome != "unknown":
        return decide_claim(offer, claim, reason=Reason.ADOPTED)
    remembered = _remembered(offer, taker)
    step = restoring.restore(remembered, by="agent", retention_s=store.retention_s)
    restored = await store.run(step)
    if restored is Restored.EXISTS:  # a web process was quicker
        claim = await store.run(_claim(offer, taker, counts))
        return decide_claim(offer, claim, reason=Reason.ADOPTED)
    if restored is Restored.OCCUPIED:
        return reject(Reason.OCCUPIED)
    await store.run(reports.count(offer.job_id, ADOPTION_BATCH, [counts]))
    return Decision(accept=True, reason=Reason.ADOPTED)


def _claim(offer: Offer, taker: Taker, counts: AgentCounts) -> Step[Advanced]:
    named = {
        "job_id": offer.job_id,
        "agent_server_id": taker.agent_server_id,
        "agent_container": taker.container,
        "agent_identity": taker.agent_identity,
    }
    fields = {name: value for name, value in named.items() if value}  # the others stay as they are
    return dispatches.advance(
        Advance(
            offer,
            ADOPTED,
            due_in_s=0.0,  # a worker looks at once: the agent may have joined long ago
            fields=fields,
            detail={**fields, "reason": Reason.ADOPTED},
            agent_counts=counts,
            inflight=admission.CLAIMED,
        )
    )


def _remembered(offer: Offer, taker: Taker) -> RememberedDispatch:
    now_ms = time.time_ns() // 1_000_000
    return RememberedDispatch(
        dispatch_id=offer.dispatch_id,
        client_id=offer.client_id,
        room_name=offer.room_name,
        agent_name=offer.agent_name,
        generation=offer.generation,
        traceparent=offer.traceparent,
        state=State.ACCEPTED,
        container=offer.container,
        agent_metadata=offer.agent_metadata,
        deployment=offer.deployment,
        age_ms=max(0, now_ms - offer.requested_at_ms) if offer.requested_at_ms else 0,
        deadline_ms=DEADLINE_MS,
        job_id=offer.job_id,
        agent_server_id=taker.agent_server_id,
        agent_container=taker.container,
        agent_identity=taker.agent_identity,
    )
