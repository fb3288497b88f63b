"""Report the end of an agent to the ledger, with what it means for the session.

One object per job. `ending.py` decides the meaning; whether people are left after a loss is for a
worker to see (`dispatcher/lifecycle/supervision.py`).
"""

from __future__ import annotations

import asyncio
import logging
from enum import StrEnum
from typing import Final, Protocol, TypeVar

from dispatcher.domain.agent_losses import crashes_in_a_row
from dispatcher.domain.metrics import AgentCounts
from dispatcher.domain.models import Dispatch
from dispatcher.domain.state_machine import AGENT_LEAVING
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import leases
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.dispatches import Advanced
from dispatcher.ledger.step import Step
from worker_agent import steps
from worker_agent.decisions import Offer
from worker_agent.ending import Cause, Ending, People

logger = logging.getLogger(__name__)

T = TypeVar("T")

# While Redis is away the report is repeated for so long; then the end of the lease stands for it.
_TELL_FOR_S: Final = 8.0
_TELL_EVERY_S: Final = 0.5


class Told(StrEnum):
    """The ledger's answer to a reported end."""

    LEAVING = "leaving"  # another dispatch may have the room, and this agent is still in it
    OVER = "over"  # the record has ended, or is looked into
    CAME_BACK = "came_back"  # the next generation serves the people: out of the room, at once
    UNTOLD = "untold"  # Redis has not answered


class Departure:
    """The report of one job to the ledger that its agent answers no more."""

    def __init__(self, store: AsyncLedger, offer: Offer, counts: AgentCounts) -> None:
        """`counts` is counted with the end of an agent that has joined."""
        self._store = store
        self._offer = offer
        self._counts = counts
        self.counted = False

    async def tell(
        self, ending: Ending, people: People, *, in_room: bool, dispatch: Dispatch | None
    ) -> Told:
        """Tell the end of an agent that has been in the room, and may still be in it.

        `dispatch` is the record as it was read before the job connected, if it was.
        """
        if ending.cause is Cause.LOST:
            return await self._lost(ending, dispatch, people)
        if people.have_returned or (ending.cause is Cause.PEOPLE_LEFT and people.present > 0):
            return await self.came_back(ending)
        done: Advanced | None = None
        if in_room:
            done = await self._patiently(steps.leaving(self._offer, ending, people))
        if done is None or done.outcome == "refused":
            done = await self._patiently(self.left(ending.reason, people))
        if done is None:
            return Told.UNTOLD
        if done.outcome == "wanted":
            return await self.came_back(ending)
        if done.moved and done.state == AGENT_LEAVING.to:
            return Told.LEAVING
        self.counted = done.applied
        return Told.OVER

    async def _lost(
        self, ending: Ending, dispatch: Dispatch | None, people: People | None = None
    ) -> Told:
        told = await tell_loss(
            self._patiently,
            self._offer,
            ending,
            dispatch,
            was_in_room=people is not None,
            met=people is not None and people.were_met,
        )
        return Told.OVER if told else Told.UNTOLD

    async def tell_before_joining(self, ending: Ending, dispatch: Dispatch | None) -> None:
        """Tell the end of a job whose agent has never been in the room."""
        if ending.cause is Cause.LOST:
            await self._lost(ending, dispatch)
            return
        message = f"the agent program has ended the job before it joined ({ending.reason})"
        await self._patiently(
            steps.declined(self._offer, message, retention_s=self._store.retention_s)
        )

    def left(self, reason: str, people: People | None = None) -> Step[Advanced]:
        """Make the step that ends the record, unless a caller has asked since its people left."""
        return steps.left(
            self._offer, reason, people, counts=self._counts, retention_s=self._store.retention_s
        )

    async def came_back(self, ending: Ending) -> Told:
        """Report that a person is there, and that this agent no longer answers.

        The next generation serves that person, unless another dispatch of the room does already.
        """
        step = steps.came_back(self._offer, ending, counts=self._counts)
        done = await self._patiently(step)
        if done is None:
            return Told.UNTOLD
        self.counted = done.applied
        return Told.CAME_BACK

    async def _patiently(self, step: Step[T]) -> T | None:
        """Carry the step out, again while Redis is away; None when it stays away."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _TELL_FOR_S
        while True:
            try:
                return await self._store.run(step)
            except LedgerUnavailable as error:
                if loop.time() > until:
                    logger.warning(
                        "the end of a job could not be told", extra={"error": str(error)}
                    )
                    return None
            await asyncio.sleep(_TELL_EVERY_S)


class Run(Protocol):
    """A function that carries a step out; None when Redis has not answered."""

    async def __call__(self, step: Step[T], /) -> T | None: ...


async def tell_loss(
    run: Run,
    offer: Offer,
    ending: Ending,
    dispatch: Dispatch | None,
    *,
    was_in_room: bool,
    met: bool = False,
) -> bool:
    """Tell that a job's agent is lost, in its room or before; false when Redis has not answered.

    The record may know of its joining sooner than the job itself, or later: whichever step fits.
    One that was in its room is lost from there, although no verification has seen it (Redis was
    away, or the workers were): whether people are left, a worker sees.

    Args:
        was_in_room: the agent has been in its room.
        met: it has met a person there.
    """
    lapse = leases.lapse(offer, job_id=offer.job_id, loss=ending.reason, met=met)
    lapsed = await run(lapse)
    if lapsed == 0 and was_in_room:
        joined = await run(steps.joined_unseen(offer))
        if joined is not None and joined.moved:
            lapsed = await run(lapse)
    if lapsed == 0:
        if ending.blameless:
            return await run(steps.given_up(offer, ending.reason)) is not None
        crashes = 0 if dispatch is None else crashes_in_a_row(dispatch)
        return await run(steps.crashed(offer, ending.reason, crashes=crashes)) is not None
    return lapsed is not None
