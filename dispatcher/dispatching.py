"""How does a queued dispatch reach LiveKit, once, whatever fails on the way?"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from dispatcher import delegating, inflight, ledger, messages, precedence, reports
from dispatcher.advance import Advance
from dispatcher.decisions import (
    Reason,
    can_take,
    crashes_in_a_row,
    eligible,
    look_again_in_s,
    slots_for,
    time_is_up,
    why_crashed,
    why_no_agent,
    why_paced,
    why_promised,
)
from dispatcher.errors import (
    DispatchFailed,
    PermanentLiveKitError,
    Postponed,
    TransientLiveKitError,
)
from dispatcher.livekit import LiveKitClient
from dispatcher.models import (
    DISPATCH_CREATED,
    DISPATCH_STARTED,
    END_MARGIN_S,
    NEXT_GENERATION,
    STILL_WAITING,
    UNREACHED,
    UNSENT,
    WAIT,
    AgentServerReport,
    Dispatch,
    FailureReason,
    State,
)
from dispatcher.outcomes import end_in_time, fail, give_up, known, log_fields, read, traced
from dispatcher.retrying import policy
from dispatcher.runtime import Services

logger = logging.getLogger(__name__)

# Three tries of the LiveKit time-out and the waits between them, and some air: a record that has
# been `dispatching` for longer has lost its worker.
LEASE_S: Final = 12.0
# How long after the end of a verification its record is looked at again.
VERIFY_GRACE_S: Final = 2.0

# Not what LiveKit has offered meanwhile.
_WAIT_UNOFFERED: Final = replace(WAIT, moves=frozenset({State.DISPATCHING}))


class Overtaken(Exception):
    """The record stands by another generation now, or has ended: there is nothing to ask for."""


class NobodyToAsk(Exception):
    """LiveKit is back, and no agent server is yet: a job that it got now it would drop."""


@dataclass
class Tries:
    """What the retry policy has seen so far of one attempt."""

    count: int = 0
    errors: list[str] = field(default_factory=list)
    outcome_unknown: bool = False

    def note(self, number: int, error: BaseException) -> None:
        """Keep the error of try `number`."""
        self.errors.append(f"try {number}: {error}")
        if isinstance(error, TransientLiveKitError) and error.outcome_unknown:
            self.outcome_unknown = True

    def fields(self, **more: str) -> Mapping[str, str]:
        """As fields of the attempt in the ledger."""
        return {"tries": str(self.count), "errors": json.dumps(self.errors), **more}


async def dispatch_agent(
    services: Services,
    dispatch_id: str,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> State:
    """Bring a queued (or waiting, or abandoned) dispatch to LiveKit; returns where it stands then.

    A message too many changes nothing: whatever is not in need of a dispatch is left alone.

    Raises:
        UnknownDispatch: no such record.
        Postponed: it is woken again, because its client has enough in hand.
        DispatchFailed: LiveKit refused for good, or the deadline has come; the record says why.
        TransientLiveKitError: LiveKit stayed unreachable; the record waits for the next try.
        LedgerUnavailable: Redis did not answer; the sweeper comes back to it.
    """
    found, servers = await services.ledger.run(reports.read_with_agent_servers(dispatch_id))
    dispatch = known(found, dispatch_id)
    if dispatch.state not in UNSENT and dispatch.state is not State.DISPATCHING:
        return dispatch.state
    if time_is_up(dispatch):
        reason = await end_in_time(services, dispatch)
        raise DispatchFailed(f"{reason.code}: {reason.message}")
    if crashes_in_a_row(dispatch) >= services.settings.max_losses:
        reason = why_crashed(dispatch)
        await fail(services, dispatch, reason)
        raise DispatchFailed(f"{reason.code}: {reason.message}")
    with services.turn(services.dispatching, dispatch) as may_go_on:
        if not may_go_on:
            raise Postponed(f"client {dispatch.client_id} has enough dispatches in hand")
        with traced("dispatch_agent", dispatch):
            try:
                return await _dispatch(services, dispatch, servers, sleep)
            except PermanentLiveKitError as error:
                # Asked while nothing could be sent yet: another look gives the same answer.
                raise await _refused(services, dispatch, error, {}) from error


async def _dispatch(
    services: Services,
    dispatch: Dispatch,
    servers: Sequence[AgentServerReport],
    sleep: Callable[[float], Awaitable[None]],
) -> State:
    if dispatch.state is State.DELEGATED and await delegating.settled(services, dispatch):
        return dispatch.state
    if dispatch.state in UNSENT and (reason := await _why_not_yet(services, dispatch, servers)):
        return await _wait(services, dispatch, reason)
    if dispatch.state is State.DISPATCHING:
        abandoned = await _take_over(services, dispatch)
        if abandoned is None:
            return dispatch.state
        dispatch = abandoned
    free_slots = None if services.unfenced(dispatch.agent_name) else slots_for(dispatch, servers)
    # With no server online LiveKit itself is away, and the tries belong in the record.
    step = ledger.advance(
        Advance(
            dispatch,
            DISPATCH_STARTED,
            due_in_s=LEASE_S,
            inflight=inflight.start(free_slots or None),
        )
    )
    started = await services.ledger.run(step)
    if started.outcome == "full":
        return await _wait(services, dispatch, why_promised(dispatch))
    if started.outcome == "paced":
        return await _wait(services, dispatch, why_paced(dispatch))
    if not started.moved:
        return dispatch.state
    return await _create(services, dispatch, sleep)


async def _why_not_yet(
    services: Services, dispatch: Dispatch, servers: Sequence[AgentServerReport]
) -> Reason | None:
    """Why LiveKit is not to be asked now; None when it is."""
    if away := services.livekit(dispatch).away:
        return Reason(code=FailureReason.LIVEKIT_UNREACHABLE, message=away)
    if not _worth_trying(services, dispatch, servers):
        return why_no_agent(dispatch, servers)
    return await precedence.why_behind(services, dispatch, servers)


def _worth_trying(
    services: Services, dispatch: Dispatch, servers: Sequence[AgentServerReport]
) -> bool:
    """False while LiveKit would drop the job: it keeps none for an agent server to come.

    With LiveKit away no agent server is registered either; then the tries belong in the record.
    """
    return (
        services.unfenced(dispatch.agent_name)
        or can_take(dispatch, servers)
        or dispatch.failure_reason == FailureReason.LIVEKIT_UNREACHABLE
    )


async def _true_reason(services: Services, dispatch: Dispatch, reason: Reason) -> Reason:
    """`reason`, unless no agent server is registered because LiveKit itself is away.

    Raises:
        PermanentLiveKitError: it refuses us, and so it may refuse the agent servers.
    """
    if reason.code == FailureReason.NO_AGENT_ONLINE:
        try:
            await services.livekit(dispatch).look(dispatch.room_name)
        except TransientLiveKitError as error:
            return Reason(code=FailureReason.LIVEKIT_UNREACHABLE, message=str(error))
    return reason


async def _wait(services: Services, dispatch: Dispatch, reason: Reason) -> State:
    reason = await _true_reason(services, dispatch, reason)
    if dispatch.state is State.WAITING:
        pause_s = look_again_in_s(dispatch, services.settings.wait_s)
        await services.ledger.run(ledger.defer(dispatch.dispatch_id, due_in_s=pause_s))
        if reason.code != dispatch.failure_reason:
            fields = {"failure_reason": reason.code, "failure_message": reason.message}
            step = ledger.advance(
                Advance(dispatch, STILL_WAITING, fields=fields, detail={"reason": reason.code})
            )
            await services.ledger.run(step)
    else:
        await give_up(services, dispatch, WAIT, reason, {})
    return State.WAITING


async def _take_over(services: Services, dispatch: Dispatch) -> Dispatch | None:
    """The next generation of a record whose worker is gone; None while somebody is at it."""
    if dispatch.read_at_ms - dispatch.updated_at_ms < LEASE_S * 1000:
        return None
    abandoned = ledger.advance(
        Advance(
            dispatch,
            NEXT_GENERATION,
            due_in_s=services.common.wake_grace_s,
            attempt={"outcome": "abandoned", "reason": "its worker is gone"},
            detail={"reason": "its worker is gone"},
        )
    )
    if not (await services.ledger.run(abandoned)).moved:
        return None
    return await read(services, dispatch.dispatch_id)


async def _create(
    services: Services, dispatch: Dispatch, sleep: Callable[[float], Awaitable[None]]
) -> State:
    tries = Tries()

    async def attempt() -> str:
        tries.count += 1
        return await _ask(services, dispatch, tries)

    try:
        # What LiveKit has not answered by then it has not answered in time.
        async with asyncio.timeout(max(0.0, dispatch.remaining_s - END_MARGIN_S)):
            livekit_dispatch_id: str = await policy(on_failure=tries.note, sleep=sleep)(attempt)
    except TimeoutError:
        tries.errors.append(f"try {tries.count}: no answer before the deadline")
        reason = Reason(
            code=FailureReason.LIVEKIT_UNREACHABLE,
            message="LiveKit had not answered when the session's time was up",
        )
        await fail(services, dispatch, reason, tries.fields())
        raise DispatchFailed(f"{reason.code}: {reason.message}") from None
    except Overtaken:
        # This worker was frozen, or LiveKit kept it for too long: somebody else is at it.
        logger.warning("overtaken", extra=log_fields(dispatch, tries=tries.count))
        return (await read(services, dispatch.dispatch_id)).state
    except NobodyToAsk:
        reason = why_no_agent(dispatch, ())
        if await give_up(services, dispatch, _WAIT_UNOFFERED, reason, tries.fields()):
            return State.WAITING
        return (await read(services, dispatch.dispatch_id)).state
    except PermanentLiveKitError as error:
        tries.errors.append(f"try {tries.count}: {error}")
        raise await _refused(services, dispatch, error, tries.fields()) from error
    except TransientLiveKitError as error:
        reason = Reason(code=FailureReason.LIVEKIT_UNREACHABLE, message=str(error))
        if not await give_up(services, dispatch, UNREACHED, reason, tries.fields()):
            # LiveKit has offered the job, or somebody else is at it.
            return (await read(services, dispatch.dispatch_id)).state
        raise
    return await _created(services, dispatch, livekit_dispatch_id, tries)


async def _refused(
    services: Services,
    dispatch: Dispatch,
    error: PermanentLiveKitError,
    attempt: Mapping[str, str],
) -> DispatchFailed:
    """End a dispatch whose client's LiveKit says no for good; returns what is to be raised."""
    reason = Reason(
        code=FailureReason.LIVEKIT_REFUSED,
        message=f"{error}; check this client's LiveKit URL, key and secret",
    )
    await fail(services, dispatch, reason, attempt)
    return DispatchFailed(f"{reason.code}: {reason.message}")


async def _ask(services: Services, dispatch: Dispatch, tries: Tries) -> str:
    """Ask LiveKit for the agent, unless it has been; returns LiveKit's id of the dispatch."""
    livekit = services.livekit(dispatch)
    if tries.count > 1:
        await _check_that_it_is_wanted(services, dispatch)
    asked_by_token = dispatch.state is State.DELEGATED
    if dispatch.generation > 1 or asked_by_token or tries.outcome_unknown:
        ours = await _clear_older(livekit, dispatch)
        if ours is not None:
            return ours
    if tries.count > 1 or dispatch.failure_reason == FailureReason.LIVEKIT_UNREACHABLE:
        await _check_that_somebody_is_there(services, dispatch)
    if dispatch.generation == 1 and not asked_by_token and not tries.outcome_unknown:
        automatic = services.settings.automatic_agents
        await livekit.create_room(dispatch, automatic=automatic, resend=tries.count - 1)
        tries.outcome_unknown = True  # it may have asked: another try has to look first
        ours = await _clear_older(livekit, dispatch, there=True)
        if ours is not None:
            return ours
    return await livekit.create_dispatch(dispatch, resend=tries.count - 1)


async def _created(
    services: Services, dispatch: Dispatch, livekit_dispatch_id: str, tries: Tries
) -> State:
    created = await services.ledger.run(
        ledger.advance(
            Advance(
                dispatch,
                DISPATCH_CREATED,
                due_in_s=services.settings.verify_timeout_s + VERIFY_GRACE_S,
                inflight=inflight.SENT,
                wake=messages.verify(dispatch.dispatch_id, dispatch.room_name),
                fields={"livekit_dispatch_id": livekit_dispatch_id},
                attempt=tries.fields(livekit_dispatch_id=livekit_dispatch_id),
                detail={"livekit_dispatch_id": livekit_dispatch_id, "tries": str(tries.count)},
            )
        )
    )
    if not created.applied:
        # This generation was given up meanwhile: take back what it has just asked for.
        logger.warning(
            "dispatched too late",
            extra=log_fields(dispatch, tries=tries.count, outcome=created.outcome),
        )
        await services.livekit(dispatch).delete_dispatch(livekit_dispatch_id, dispatch.room_name)
    return State(created.state)


async def _check_that_it_is_wanted(services: Services, dispatch: Dispatch) -> None:
    now = await read(services, dispatch.dispatch_id)
    if now.generation != dispatch.generation or now.terminal:
        raise Overtaken


async def _check_that_somebody_is_there(services: Services, dispatch: Dispatch) -> None:
    """While LiveKit is away no agent server is registered; they come back some seconds after it."""
    if services.unfenced(dispatch.agent_name):
        return
    await services.livekit(dispatch).look(dispatch.room_name)  # or the reason is LiveKit itself
    servers = await services.ledger.run(reports.agent_servers())
    if not eligible(dispatch, servers):
        raise NobodyToAsk


async def _clear_older(
    livekit: LiveKitClient, dispatch: Dispatch, *, there: bool = False
) -> str | None:
    """Take older generations of this dispatch back; returns this generation's id if it is there.

    Only older ones: a worker that was frozen for a while may come here with a stale generation, and
    must not take the agent of the present one away.
    """
    ours = None
    for listed in await livekit.list_dispatch(dispatch.room_name, there=there):
        if listed.dispatch_id != dispatch.dispatch_id:
            continue
        if listed.generation == dispatch.generation:
            ours = listed.livekit_dispatch_id
        elif (listed.generation or 0) < dispatch.generation:
            await livekit.delete_dispatch(listed.livekit_dispatch_id, dispatch.room_name)
    return ours
