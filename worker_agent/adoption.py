"""How does an agent take over a dispatch that the ledger does not know it has?

LiveKit brings an agent by a participant's token while Redis is away, and Redis may lose the record
of a dispatch whose agent is at work. In both cases the agent says what it is there for, once the
ledger answers: the record is its own then, or another job's, and then it must leave.
"""

from __future__ import annotations

import time
from typing import Final

from dispatcher import inflight, ledger, restoring
from dispatcher.ledger import Advanced
from dispatcher.models import ADOPTED, RememberedDispatch, State
from dispatcher.restoring import Restored
from dispatcher.store import AsyncLedger
from worker_agent import metrics
from worker_agent.offers import AgentServerIdentity, Decision, Offer, Reason, decide_claim, reject

# The agent knows nothing of its client's deadline. Seeing an agent that is there takes a second.
DEADLINE_MS: Final = 20_000
# LiveKit waits a second for an agent server's answer, and a person for their agent.
DELEGATED_CLAIM_S: Final = 0.3
# The verification looks at once: the agent may have joined long ago.
DUE_S: Final = 0.0


async def adopt(
    store: AsyncLedger,
    offer: Offer,
    server: AgentServerIdentity,
    *,
    metrics_key: str,
    retention_s: int,
    agent_identity: str = "",
) -> Decision:
    """Claim the dispatch of `offer` for its job, writing its record if there is none.

    Args:
        agent_identity: set once the agent is in the room.

    Raises:
        LedgerUnavailable: Redis did not answer.
    """
    claim = await store.run(_claim(offer, server, metrics_key, agent_identity))
    if claim.outcome != "unknown":
        return decide_claim(offer, claim, reason=Reason.ADOPTED)
    step = restoring.restore(
        _remembered(offer, server, agent_identity), by="agent", retention_s=retention_s
    )
    restored = await store.run(step)
    if restored is Restored.EXISTS:  # a web process was quicker
        claim = await store.run(_claim(offer, server, metrics_key, agent_identity))
        return decide_claim(offer, claim, reason=Reason.ADOPTED)
    if restored is Restored.OCCUPIED:
        return reject(Reason.OCCUPIED)
    return Decision(accept=True, reason=Reason.ADOPTED)


def _claim(
    offer: Offer, server: AgentServerIdentity, metrics_key: str, agent_identity: str
) -> ledger.Step[Advanced]:
    named = {
        "job_id": offer.job_id,
        "agent_server_id": server.agent_server_id,
        "agent_container": server.container,
        "agent_identity": agent_identity,
    }
    # A job's own process does not know its agent server's id, and leaves the one that is there.
    fields = {name: value for name, value in named.items() if value}
    return ledger.advance(
        offer.ref,
        ADOPTED,
        due_in_s=DUE_S,
        fields=fields,
        detail={**fields, "reason": Reason.ADOPTED},
        metrics=metrics.ADOPTED,
        inflight=inflight.CLAIMED,
        metrics_key=metrics_key,
    )


def _remembered(
    offer: Offer, server: AgentServerIdentity, agent_identity: str
) -> RememberedDispatch:
    now_ms = time.time_ns() // 1_000_000
    return RememberedDispatch(
        dispatch_id=offer.dispatch_id,
        client_id=offer.client_id,
        room_name=offer.room_name,
        agent_name=offer.agent_name,
        generation=offer.generation,
        state=State.ACCEPTED,
        container=offer.container,
        agent_metadata=offer.agent_metadata,
        age_ms=max(0, now_ms - offer.requested_at_ms) if offer.requested_at_ms else 0,
        deadline_ms=DEADLINE_MS,
        job_id=offer.job_id,
        agent_server_id=server.agent_server_id,
        agent_container=server.container,
        agent_identity=agent_identity,
    )
