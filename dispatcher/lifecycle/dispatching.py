"""Request a queued dispatch from LiveKit, exactly once, whatever fails on the way."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from dispatcher.domain import state_machine
from dispatcher.domain.agent_losses import crashes_in_a_row, why_crashed
from dispatcher.domain.agent_servers import can_take, slots_for
from dispatcher.domain.failure_reasons import (
    Reason,
    why_no_agent,
    why_paced,
    why_promised,
    why_too_late,
)
from dispatcher.domain.models import (
    UNSENT,
    WAITED,
    AgentServerReport,
    Dispatch,
    FailureReason,
    State,
)
from dispatcher.domain.timing import (
    DISPATCHING_LEASE_S,
    VERIFY_GRACE_S,
    look_again_in_s,
    time_is_up,
    unchanged_s,
)
from dispatcher.errors import (
    DispatchFailed,
    PermanentLiveKitError,
    Postponed,
    TransientLiveKitError,
)
from dispatcher.ledger import admission, celery_messages, dispatches, reports
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.celery_messages import DISPATCH_TASK
from dispatcher.lifecycle import delegation, precedence
from dispatcher.lifecycle.asking_livekit import GiveUp, Tries, ask
from dispatcher.lifecycle.outcomes import fail, give_up, known, log_fields, read
from dispatcher.lifecycle.placement import Placed
from dispatcher.lifecycle.services import Services

logger = logging.getLogger(__name__)

# Leaves a record alone whose job LiveKit has offered meanwhile.
_WAIT_UNOFFERED: Final = replace(state_machine.WAIT, moves=frozenset({State.DISPATCHING}))


async def dispatch_agent(services: Services, dispatch_id: str) -> State:
    """Request a queued (or waiting, or abandoned) dispatch from LiveKit; return its record's state.

    A superfluous message changes nothing: a record in any other state is left alone.

    Raises:
        Postponed: its client has reached its limit of running tasks; it is woken again.
        DispatchFailed: LiveKit refused for good, or the deadline has come; the record says why.
        TransientLiveKitError: LiveKit stayed unreachable; the record waits for the next try.
    """
    found, servers = await services.ledger.run(reports.read_with_agent_servers(dispatch_id))
    dispatch = known(found, dispatch_id)
    if dispatch.state not in UNSENT and dispatch.state is not State.DISPATCHING:
        return dispatch.state
    if time_is_up(dispatch):
        reason = why_too_late(dispatch, servers, fenced=services.fenced(dispatch))
        raise await _failed(services, dispatch, reason)
    if crashes_in_a_row(dispatch) >= services.settings.max_losses:
        raise await _failed(services, dispatch, why_crashed(dispatch))
    with services.turn(services.dispatching, dispatch, DISPATCH_TASK) as may_go_on:
        if may_go_on:
            try:
                return await _dispatch(services, dispatch, servers)
            except PermanentLiveKitError as error:
                # From a look before anything was sent: another look would give the same answer.
                raise await _refused(services, dispatch, error) from error
    raise Postponed(f"client {dispatch.client_id} has enough dispatches in hand")


async def _dispatch(
    services: Services, dispatch: Dispatch, servers: Sequence[AgentServerReport]
) -> State:
    if dispatch.state is State.DELEGATED and await delegation.settled(services, dispatch):
        return dispatch.state
    if dispatch.state in UNSENT and (reason := await _why_not_yet(services, dispatch, servers)):
        return await _wait(services, dispatch, reason)
    if dispatch.state is State.DISPATCHING:
        abandoned = await _take_over(services, dispatch)
        if abandoned is None:
            return dispatch.state
        dispatch = abandoned
    free_slots = slots_for(dispatch, servers) if services.fenced(dispatch) else None
    # With no server online LiveKit itself is away: make the tries, so that the record has them.
    started = await services.advance(
        Advance(
            dispatch,
            state_machine.DISPATCH_STARTED,
            due_in_s=DISPATCHING_LEASE_S,
            inflight=admission.start(free_slots or None),
        )
    )
    if started.outcome == "full":
        return await _wait(services, dispatch, why_promised(dispatch))
    if started.outcome == "paced":
        return await _wait(services, dispatch, why_paced(dispatch))
    if not started.moved:
        return dispatch.state
    return await _create(services, dispatch)


async def _why_not_yet(
    services: Services, dispatch: Dispatch, servers: Sequence[AgentServerReport]
) -> Reason | None:
    """Return why LiveKit is not to be asked now; None when it is."""
    if away := services.livekit(dispatch).away:
        return Reason(code=FailureReason.LIVEKIT_UNREACHABLE, message=away)
    # LiveKit would drop the job: it keeps none until an agent server comes. After it was away no
    # agent server is registered either: it is asked then, so that the record has the tries.
    was_away = dispatch.failure_reason == FailureReason.LIVEKIT_UNREACHABLE
    if services.fenced(dispatch) and not was_away and not can_take(dispatch, servers):
        return why_no_agent(dispatch, servers)
    return await precedence.why_behind(services, dispatch, servers)


async def _wait(services: Services, dispatch: Dispatch, reason: Reason) -> State:
    """Have the record wait for an agent server.

    Raises:
        PermanentLiveKitError: LiveKit refuses the client, and so may refuse its agent servers.
    """
    if reason.code == FailureReason.NO_AGENT_ONLINE:  # perhaps because LiveKit itself is away
        try:
            await services.livekit(dispatch).look(dispatch.room_name)
        except TransientLiveKitError as error:
            reason = Reason(code=FailureReason.LIVEKIT_UNREACHABLE, message=str(error))
    if dispatch.state is State.WAITING:
        pause_s = look_again_in_s(dispatch, services.settings.wait_s)
        await services.ledger.run(dispatches.defer(dispatch.dispatch_id, due_in_s=pause_s))
        if reason.code != dispatch.failure_reason:
            fields = {"failure_reason": reason.code, "failure_message": reason.message}
            detail = {"reason": reason.code}
            await services.advance(
                Advance(dispatch, state_machine.STILL_WAITING, fields=fields, detail=detail)
            )
    else:
        # A delegated one may have been asked for by its token.
        attempt = {"outcome": WAITED} if dispatch.state is State.QUEUED else {}
        await give_up(services, dispatch, state_machine.WAIT, reason, attempt)
    return State.WAITING


async def _take_over(services: Services, dispatch: Dispatch) -> Dispatch | None:
    """Start the next generation of a record whose worker is gone; None while one works on it."""
    if unchanged_s(dispatch) < DISPATCHING_LEASE_S:
        return None
    abandoned = await services.advance(
        Advance(
            dispatch,
            state_machine.NEXT_GENERATION,
            due_in_s=services.common.wake_grace_s,
            attempt={"outcome": "abandoned", "reason": "its worker is gone"},
            detail={"reason": "its worker is gone"},
        )
    )
    return await read(services, dispatch.dispatch_id) if abandoned.moved else None


async def _create(services: Services, dispatch: Dispatch) -> State:
    tries = Tries()
    try:
        asked = await ask(services, dispatch, tries)
    except TimeoutError:
        tries.errors.append(f"try {tries.count}: no answer before the deadline")
        reason = Reason(
            code=FailureReason.LIVEKIT_UNREACHABLE,
            message="LiveKit had not answered when the session's time was up",
        )
        raise await _failed(services, dispatch, reason, tries.fields()) from None
    except PermanentLiveKitError as error:
        tries.errors.append(f"try {tries.count}: {error}")
        raise await _refused(services, dispatch, error, tries.fields()) from error
    except TransientLiveKitError as error:
        reason = Reason(code=FailureReason.LIVEKIT_UNREACHABLE, message=str(error))
        if not await give_up(services, dispatch, state_machine.UNREACHED, reason, tries.fields()):
            # LiveKit has offered the job, or another worker has taken over.
            return (await read(services, dispatch.dispatch_id)).state
        raise
    if isinstance(asked, GiveUp):
        return await _not_asked(services, dispatch, asked, tries)
    if isinstance(asked, Placed):
        return asked.state
    return await _created(services, dispatch, asked, tries)


async def _not_asked(services: Services, dispatch: Dispatch, why: GiveUp, tries: Tries) -> State:
    if why is GiveUp.OVERTAKEN:
        # This worker was frozen, or waited too long for LiveKit: another one has taken over.
        logger.warning("overtaken", extra=log_fields(dispatch, tries=tries.count))
    elif await give_up(
        services, dispatch, _WAIT_UNOFFERED, why_no_agent(dispatch, ()), tries.fields()
    ):
        return State.WAITING
    return (await read(services, dispatch.dispatch_id)).state


async def _failed(
    services: Services, dispatch: Dispatch, reason: Reason, attempt: Mapping[str, str] = {}
) -> DispatchFailed:
    """End a dispatch as `failed`; return the error to raise."""
    await fail(services, dispatch, reason, attempt)
    return DispatchFailed(f"{reason.code}: {reason.message}")


async def _refused(
    services: Services,
    dispatch: Dispatch,
    error: PermanentLiveKitError,
    attempt: Mapping[str, str] = {},
) -> DispatchFailed:
    """End a dispatch that its client's LiveKit refuses for good; return the error to raise."""
    reason = Reason(
        code=FailureReason.LIVEKIT_REFUSED,
        message=f"{error}; check this client's LiveKit URL, key and secret",
    )
    return await _failed(services, dispatch, reason, attempt)


async def _created(
    services: Services, dispatch: Dispatch, livekit_dispatch_id: str, tries: Tries
) -> State:
    created = await services.advance(
        Advance(
            dispatch,
            state_machine.DISPATCH_CREATED,
            due_in_s=services.settings.verify_timeout_s + VERIFY_GRACE_S,
            inflight=admission.SENT,
            wake=celery_messages.verify(dispatch.dispatch_id, dispatch.room_name),
            fields={"livekit_dispatch_id": livekit_dispatch_id},
            attempt=tries.fields(livekit_dispatch_id=livekit_dispatch_id),
            detail={"livekit_dispatch_id": livekit_dispatch_id, "tries": str(tries.count)},
        )
    )
    if not created.applied:
        # This generation was given up meanwhile: delete what has just been created.
        logger.warning(
            "dispatched too late",
            extra=log_fields(dispatch, tries=tries.count, outcome=created.outcome),
        )
        await services.livekit(dispatch).delete_dispatch(livekit_dispatch_id, dispatch.room_name)
    return State(created.state)
