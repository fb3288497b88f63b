"""Steps that end a session: its client cancels it, no person comes, or all people have left.

A caller may have asked again for it since its room was looked into, and was told "joined". Where
that was just now (`unless_asked_for_s`) nothing is done, and the answer is `wanted`.
"""

from __future__ import annotations

from dispatcher.domain.models import Dispatch, DispatchRef, FailureReason
from dispatcher.domain.state_machine import CANCEL, NOBODY_CAME, ROOM_OVER
from dispatcher.domain.timing import STILL_TO_COME_S
from dispatcher.ledger import celery_messages, dispatches, keys
from dispatcher.ledger.advance import Advance, Provided, Times
from dispatcher.ledger.dispatches import Advanced
from dispatcher.ledger.step import Step

# The sweeper wakes a worker again for a cancelled session whose room was not looked into by then.
_CLEARED_S = 2.0


def cancel(
    dispatch: Dispatch,
    *,
    retention_s: int,
    within_s: float | None = None,
    paced: bool = False,
    by: str = "its client",
) -> Step[Advanced]:
    """Move a dispatch to `cancelled` at once, whatever its state; one that has ended stays.

    It is due (`clearing`) until `lifecycle/cleanup.py` has removed its agent, and a worker is woken
    at once; neither where LiveKit has never been asked for it.

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
            due_in_s=_CLEARED_S,
            clears=True,
            paced=paced,
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


def cleared(dispatch: Dispatch) -> Step[int]:
    """Note that nothing of a cancelled dispatch is left to clear away."""
    return Step(
        "cleared",
        (keys.record(dispatch.dispatch_id), keys.DUE),
        (dispatch.dispatch_id, dispatch.generation),
        int,
    )


def nobody_came(ref: DispatchRef, *, waited_s: float, retention_s: int) -> Step[Advanced]:
    """End the session as `cancelled`: its agent waits in vain, and no caller has just asked."""
    return dispatches.advance(
        Advance(
            ref,
            NOBODY_CAME,
            fields={
                "failure_reason": FailureReason.NOBODY_CAME,
                "failure_message": f"nobody has joined the room within {waited_s:.0f} s",
            },
            detail={"reason": FailureReason.NOBODY_CAME},
            times=Times(retention_s=retention_s),
            provided=Provided(unless_asked_for_s=STILL_TO_COME_S),
        )
    )


def everybody_left(
    ref: DispatchRef,
    *,
    retention_s: int,
    reason: str = "nobody is in the room any more",
    unless_asked_for_s: float | None = None,
) -> Step[Advanced]:
    """End the session as `ended`."""
    return dispatches.advance(
        Advance(
            ref,
            ROOM_OVER,
            detail={"reason": reason},
            times=Times(retention_s=retention_s),
            provided=Provided(unless_asked_for_s=unless_asked_for_s),
        )
    )
