"""Read a record, and write the outcome of its attempt or of the whole dispatch."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from dispatcher.domain.failure_reasons import Reason
from dispatcher.domain.models import Dispatch, State, Transition
from dispatcher.domain.rooms import RoomView
from dispatcher.domain.state_machine import FAILED
from dispatcher.domain.timing import look_again_in_s
from dispatcher.errors import LiveKitError, UnknownDispatch
from dispatcher.ledger import admission, celery_messages, dispatches
from dispatcher.ledger.advance import Advance, Times
from dispatcher.lifecycle.services import Services
from dispatcher.observability import state_changes

logger = logging.getLogger(__name__)


async def read(services: Services, dispatch_id: str, *, timeline: bool = True) -> Dispatch:
    """Return the record, with its timeline if that is wanted."""
    step = dispatches.read(dispatch_id, timeline=timeline)
    return known(await services.ledger.run(step), dispatch_id)


def known(dispatch: Dispatch | None, dispatch_id: str) -> Dispatch:
    """Return `dispatch` itself; raise `UnknownDispatch` if there is no record."""
    if dispatch is None:
        raise UnknownDispatch(
            f"no dispatch {dispatch_id!r}: it never existed or its retention time is over"
        )
    return dispatch


def log_fields(dispatch: Dispatch, **more: object) -> dict[str, object]:
    """Return the fields of a worker's log line about a dispatch."""
    return {**state_changes.log_fields(dispatch), "generation": dispatch.generation, **more}


async def look(services: Services, dispatch: Dispatch) -> RoomView | None:
    """Return what LiveKit says of the dispatch's room; None, and log why, if it says nothing."""
    try:
        return await services.livekit(dispatch).look(dispatch.room_name)
    except LiveKitError as error:
        logger.warning("cannot see the room", extra=log_fields(dispatch, error=str(error)))
        return None


async def fail(
    services: Services, dispatch: Dispatch, reason: Reason, attempt: Mapping[str, str] = {}
) -> bool:
    """End the record as `failed`, with the reason; return false if the record has moved on."""
    done = await services.advance(
        Advance(
            dispatch,
            FAILED,
            fields={"failure_reason": reason.code, "failure_message": reason.message},
            attempt={"outcome": "failed", "reason": reason.code, **attempt},
            detail={"reason": reason.code, "message": reason.message},
            times=Times(retention_s=services.common.retention_s),
        )
    )
    return done.moved


async def give_up(
    services: Services,
    dispatch: Dispatch,
    transition: Transition,
    reason: Reason,
    attempt: Mapping[str, str] = {},
    *,
    dropped: bool = False,
) -> bool:
    """End this attempt (`WAIT` or `NEXT_GENERATION`); return false if the record has moved on.

    The same step writes the next generation's message.
    """
    if transition.to is State.WAITING:
        wake = None
        due_in_s = look_again_in_s(dispatch, services.settings.wait_s)
        fields = {"failure_reason": reason.code, "failure_message": reason.message}
    else:
        wake = celery_messages.dispatch(dispatch.dispatch_id, dispatch.room_name)
        due_in_s, fields = services.common.wake_grace_s, {}
    done = await services.advance(
        Advance(
            dispatch,
            transition,
            due_in_s=due_in_s,
            fields=fields,
            attempt={"outcome": "given_up", "reason": reason.code, **attempt},
            detail={"reason": reason.code, "message": reason.message},
            inflight=admission.DROPPED if dropped else admission.NOT_IN_FLIGHT,
            wake=wake,
        )
    )
    return done.moved
