"""How does a client end a dispatch of its own?

At once and for good, in the ledger; `lifecycle/cleanup.py` then takes its agent out of the room.
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
    """Have a dispatch end as `cancelled`, whatever it is doing; one that has ended stays as it is.

    It is due (`clearing`) until `clear_away` has seen that nothing of it is left, and a worker is
    told so at once; not where LiveKit has never been asked for it.

    Args:
        within_s: so long after the record was read its caller is told that it has failed, and
            nothing is done any more (`late`); None: it waits as long as it takes.
        paced: there are other clients, who shall not wait behind a long row that this one cancels;
            the sweeper comes to its rest.
        by: who wants that.
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
    """The id of the live dispatch of the room, if there is one."""
    live = keys.live(dispatch.client_id, dispatch.agent_name, dispatch.room_name)
    return Step("serving", (live,), (), str)


def cleared(dispatch: Dispatch) -> Step[int]:
    """Nobody need look after a cancelled dispatch any more."""
    return Step(
        "cleared",
        (keys.record(dispatch.dispatch_id), keys.DUE),
        (dispatch.dispatch_id, str(dispatch.generation)),
        int,
    )
