"""Claim a dispatch for a job that LiveKit offers, in the ledger, before the job is accepted."""

from __future__ import annotations

import asyncio
import time

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import dispatches
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.clock import LedgerClock
from dispatcher.ledger.dispatches import Advanced
from dispatcher.ledger.step import Step
from dispatcher.observability import tracing
from worker_agent import steps
from worker_agent.adoption import DELEGATED_CLAIM_S, Taker, adopt
from worker_agent.decisions import (
    AgentServerIdentity,
    Decision,
    Offer,
    Reason,
    decide_claim,
    reject,
)
from worker_agent.metrics import ADOPTED, AgentMetrics, answered
from worker_agent.tenants import Tenants


class Claims:
    """The claims of one agent server."""

    def __init__(
        self,
        server: AgentServerIdentity,
        store: AsyncLedger,
        metrics: AgentMetrics,
        tenants: Tenants,
    ) -> None:
        self._server = server
        self._store = store
        self._metrics = metrics
        self._tenants = tenants
        self.clock = LedgerClock()  # set by the agent server's reports

    async def claim(self, offer: Offer, offered_at: float) -> Decision:
        """Claim the job, offered at that monotonic time, and have the answer counted once."""
        if offer.delegated:
            decision, counted = await self._adopt(offer), False
        else:
            decision, counted = await self._claim(offer, offered_at)
        if counted:
            self._metrics.granted(offer.client_id, offer.job_id, decision)
        else:
            self._metrics.note(offer.client_id, answered(decision))
        return decision

    async def _claim(self, offer: Offer, offered_at: float) -> tuple[Decision, bool]:
        """Return the decision, and whether the ledger has counted it already."""
        with tracing.span("claim"):
            try:
                not_after_ms = self.clock.in_ms(self._store.timeout_s)
                claim = await self._store.run(self._step(offer, offered_at, not_after_ms))
                if claim.outcome == "late":  # but heard in time: the clocks have been set
                    claim = await self._store.run(self._step(offer, offered_at, None))
                decision = decide_claim(offer, claim)
                counted = claim.moved or (decision.accept and await self._is_counted(offer))
            except LedgerUnavailable:
                # Only the ledger knows whether this agent would be the second.
                return reject(Reason.LEDGER_UNAVAILABLE), False
        return decision, counted

    def _step(self, offer: Offer, offered_at: float, not_after_ms: float | None) -> Step[Advanced]:
        granted = Decision(accept=True, reason=Reason.CLAIMED)
        return steps.claim(
            offer,
            self._server,
            offered_ago_s=time.monotonic() - offered_at,
            not_after_ms=not_after_ms,
            counts=self._metrics.counts(offer.client_id, answered(granted)),
        )

    async def _is_counted(self, offer: Offer) -> bool:
        """True when this very claim has been carried out before, and its answer was lost."""
        if self._metrics.was_granted(offer.job_id):
            return False  # LiveKit offers that job once more
        dispatch = await self._store.run(dispatches.read(offer.dispatch_id))
        return dispatch is not None and dispatch.agent_server_id == self._server.agent_server_id

    async def _adopt(self, offer: Offer) -> Decision:
        """Claim a job that LiveKit offers by a token; without the ledger take it as it is.

        A second agent is not to be feared then: LiveKit offers such a job once, when it creates the
        room. The session claims it as soon as the ledger answers.
        """
        try:
            async with asyncio.timeout(DELEGATED_CLAIM_S):
                if not await self._tenants.here(offer.client_id):
                    return reject(Reason.WRONG_CLIENT)
                taker = Taker(
                    container=self._server.container,
                    agent_server_id=self._server.agent_server_id,
                )
                counts = self._metrics.counts(offer.client_id, ADOPTED)
                return await adopt(self._store, offer, taker, counts=counts)
        except (LedgerUnavailable, TimeoutError):
            return Decision(accept=True, reason=Reason.DELEGATED)
