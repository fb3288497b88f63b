"""Cancellation of a dispatch by its client.

It takes effect at once and for good in the ledger; `lifecycle/cleanup.py` then removes the agent
from the room.
"""

from __future__ import annotations

from typing import Final

from dispatcher.domain.models import Dispatch, FailureReason
from dispatcher.domain.quotas import Clearing
from dispatcher.domain.state_machine import CANCEL
from dispatcher.ledger import celery_messages, dispatches, keys
from dispatcher.ledger.advance import Advance, Provided, Times
from dispatcher.ledger.dispatches import Advanced
from dispatcher.ledger.step import Step

DUE_S: Final = 2.0


def cancel(
    dispatch: Dispatch,
    *,
    retention_s: int,
    within_s: float | None = None,
    paced: bool = False,
    by: str = "its client",
) -> Step[Advanced]:
    """Move a dispatch to `cancelled`, whatever its state; one that has ended stays as it is.

    It is due (`clearing`) until `clear_away` has seen that nothing of it is left, and a worker is
    woken at once; neither where LiveKit has never been asked for it.

    Args:
        within_s: the caller is told so long after the read that the request failed, and from then
            on nothing is done (`late`); None: the caller waits without a limit.
        paced: other clients exist, and must not wait behind a long row that this one cancels; the
            sweeper does the rest of the row.
        by: who cancels, for the timeline.
    """
    return dispatches.advance(
        Advance(
            dispatch,
            CANCEL,
            provided=Provided(
                any_generation=True,
                not_after_ms=None if within_s is None else dispatch.read_at_ms + within_s * 1000,
            ),
            due_in_s=DUE_S,
            clears=Clearing(paced=paced),
            fields={
                "failure_reason": FailureReason.CANCELLED_BY_CLIENT,
                "failure_message": f"{by} has cancelled it",
            },
            attempt={"outcome": "cancelled", "reason": FailureReason.CANCELLED_BY_CLIENT},
            detail={"reason": FailureReason.CANCELLED_BY_CLIENT},
            times=Times(retention_s=retention_s),
            wake=celery_messages.clear(dispatch.dispatch_id, dispatch.room_name),
        )
    )


def serving(dispatch: Dispatch) -> Step[str]:
    """Return the id of the room's live dispatch; "" if there is none."""
    live = keys.live(dispatch.client_id, dispatch.agent_name, dispatch.room_name)
    return Step("serving", (live,), (), str)


def cleared(dispatch: Dispatch) -> Step[int]:
    """Note that nothing of a cancelled dispatch is left to clear away."""
    return Step(
        "cleared",
        (keys.record(dispatch.dispatch_id), keys.DUE),
        (dispatch.dispatch_id, str(dispatch.generation)),
        int,
    )
