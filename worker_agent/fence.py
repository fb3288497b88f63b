"""The fence: ask the ledger whether a dispatch is still this job's before its agent connects.

Minutes may have passed since the claim. An agent without a claim, or with a dispatch that Redis has
lost, adopts the dispatch or leaves.
"""

from __future__ import annotations

import asyncio

from dispatcher.domain.models import Dispatch, State
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import dispatches
from dispatcher.observability import tracing
from worker_agent import metrics, prewarm
from worker_agent.adoption import DELEGATED_CLAIM_S, Taker, adopt
from worker_agent.decisions import Offer, Reason
from worker_agent.departure import patiently
from worker_agent.job import Job
from worker_agent.tenants import Tenants


def still_ours(dispatch: Dispatch | None, offer: Offer) -> bool:
    """Return true while the record is this very job's."""
    return (
        dispatch is not None
        and dispatch.generation == offer.generation
        and dispatch.job_id == offer.job_id
        and dispatch.state in (State.ACCEPTED, State.JOINED)
    )


class Fence:
    """The claim of one job on its dispatch.

    `claimed`: the ledger has granted it. `dispatch`: the record as it was before the job connected,
    if it could be read.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._tenants = Tenants(job.store, own_client_id=job.guard.client_id)
        self._began_at = asyncio.get_running_loop().time()
        self.claimed = not job.offer.delegated
        self.dispatch: Dispatch | None = None

    async def holds(self) -> bool:
        """Return false, and end the job, when the record is another job's or generation's."""
        span = self._job.joining_span
        with tracing.inside(span), tracing.span("fence"):
            holds = await self._holds()
        if not holds:
            tracing.fail(span, "Fenced")
            tracing.end(span)
        return holds

    async def _holds(self) -> bool:
        try:
            # Without the ledger a granted claim holds, and so does a job that LiveKit has given by
            # a token; the ledger is asked again after joining.
            if not self.claimed:
                async with asyncio.timeout(DELEGATED_CLAIM_S):
                    return await self.adopt()
            # It blocks this job's loop, in which nothing else is to be done yet: a connection that
            # is open already answers sooner than a new one could be made.
            step = dispatches.read(self._job.offer.dispatch_id, timeline=False)
            self.dispatch = prewarm.ask(step)
            if self.dispatch is None:
                return await self.adopt()
        except (LedgerUnavailable, TimeoutError):
            return True
        if still_ours(self.dispatch, self._job.offer):
            return True
        self._job.withdraw("not connecting")
        return False

    async def adopt(self) -> bool:
        """Take over a dispatch that the ledger does not know to be ours; false when it is not."""
        job = self._job
        room = job.ctx.room
        if not await self._tenants.here(job.offer.client_id):
            # Redis was away when its agent server was asked, and could not say so.
            job.withdraw(f"refused ({Reason.WRONG_CLIENT})")
            return False
        decision = await adopt(
            job.store,
            job.offer,
            Taker(
                container=job.guard.container,
                agent_identity=room.local_participant.identity if room.isconnected() else "",
            ),
            counts=job.counts(metrics.ADOPTED),
        )
        self.claimed = decision.accept
        if not decision.accept:
            job.withdraw(f"refused ({decision.reason})")
        return decision.accept

    def accepted_ago_s(self) -> float:
        """Return how long ago its agent server has accepted the job, as far as it is known."""
        before_s = 0.0
        if self.dispatch is not None:
            before_s = (self.dispatch.read_at_ms - self.dispatch.updated_at_ms) / 1000
        return before_s + asyncio.get_running_loop().time() - self._began_at

    async def adopt_late(self) -> bool:
        """Adopt a delegated session that is over before Redis is back; false: it is another job's.

        Otherwise another agent would be sent for it, to a room that its people have left.
        """
        return await patiently(self.adopt) is not False
