"""Redispatch a dispatch on an operator's or a client's request, or refuse with the reason."""

from __future__ import annotations

import time
from dataclasses import replace

from dispatcher.clients.models import Client
from dispatcher.domain.models import PENDING, Dispatch, State
from dispatcher.domain.quotas import Admission
from dispatcher.domain.rooms import our_agent
from dispatcher.domain.state_machine import REDISPATCH, REDISPATCH_REFUSED
from dispatcher.errors import (
    LimitReached,
    LiveKitError,
    Overloaded,
    RedispatchRefused,
    TooLate,
)
from dispatcher.ledger import celery_messages
from dispatcher.ledger.advance import Advance, Provided, Times
from dispatcher.ledger.celery_messages import REDISPATCH_JOINED_TASK
from dispatcher.ledger.clock import LedgerClock
from dispatcher.ledger.dispatches import Advanced
from dispatcher.lifecycle.outcomes import read
from dispatcher.lifecycle.services import Services


async def redispatch(
    services: Services, dispatch_id: str, *, by: str = "hand", asked_before: bool = False
) -> Dispatch:
    """Start a new generation of an ended, failed, cancelled or agentless dispatch.

    A worker is woken for it, unless its client has many requests: then the sweeper wakes one in the
    client's turn. Return the record as it is then.

    Args:
        asked_before: the request has been counted against its client's limits, and paced, already.

    Raises:
        RedispatchRefused: the agent is there, is on its way, or the room is another dispatch's;
            its client has reached a limit; or LiveKit cannot be asked.
        LedgerUnavailable: Redis did not answer in time; nothing is done later.
    """
    clock, asked_at = LedgerClock(), time.monotonic()
    dispatch = await read(services, dispatch_id)
    clock.heard(dispatch.read_at_ms, asked_at=asked_at)
    await check(services, dispatch)
    client = services.clients.by_id(dispatch.client_id)
    admission = Admission(
        limits=replace(client.limits, requests_per_minute=0) if asked_before else client.limits,
        paced=len(services.clients.clients) > 1 and not asked_before,
        max_backlog=services.common.max_backlog,
    )
    command = Advance(
        dispatch,
        REDISPATCH,
        due_in_s=services.common.wake_grace_s,
        detail={"by": by},
        times=Times(deadline_in_s=client.deadline_s),
        provided=Provided(admission=admission, not_after_ms=clock.in_ms(services.ledger.timeout_s)),
        wake=celery_messages.dispatch(dispatch.dispatch_id, dispatch.room_name),
    )
    done = await _admitted(services, client, command)
    if done.outcome == "late":
        raise TooLate
    if done.outcome == "occupied":
        raise RedispatchRefused(
            f"room {dispatch.room_name!r} is served by dispatch {done.job_id} now; "
            f"look at that one instead of {dispatch.dispatch_id}"
        )
    if not done.moved:
        raise RedispatchRefused(
            f"dispatch {dispatch.dispatch_id} has just become {done.state}; look again"
        )
    return await read(services, dispatch_id)


async def _admitted(services: Services, client: Client, command: Advance) -> Advanced:
    """Change the record; raise `RedispatchRefused` if its client has reached a limit."""
    try:
        return await services.advance(command)
    except LimitReached as error:
        raise RedispatchRefused(
            f"client {client.client_id!r} may have {error}; try again in "
            f"{max(1.0, error.retry_after_s):.0f} s"
        ) from error
    except Overloaded as error:
        raise RedispatchRefused(
            f"client {client.client_id!r} has its share of the sessions that may be on their way "
            "(USHER_MAX_BACKLOG); try again when some have their agents"
        ) from error


async def check(services: Services, dispatch: Dispatch) -> None:
    """Raise `RedispatchRefused` if a redispatch now would do harm, or nothing."""
    if dispatch.state in PENDING:
        raise RedispatchRefused(
            f"dispatch {dispatch.dispatch_id} is {dispatch.state} already (generation "
            f"{dispatch.generation}); it goes on by itself, look again in a few seconds"
        )
    if dispatch.state is State.JOINED:
        await _refuse_if_served(services, dispatch)


async def redispatch_joined(services: Services, dispatch_id: str) -> State:
    """Redispatch for a caller whose HTTP request got a 202: a refusal goes into the timeline."""
    dispatch = await read(services, dispatch_id)
    with services.turn(services.dispatching, dispatch, REDISPATCH_JOINED_TASK) as may_go_on:
        if not may_go_on:
            return dispatch.state
        try:
            return (await redispatch(services, dispatch_id, by="http", asked_before=True)).state
        except RedispatchRefused as refusal:
            dispatch = await read(services, dispatch_id)
            detail = {"message": str(refusal)}
            await services.advance(Advance(dispatch, REDISPATCH_REFUSED, detail=detail))
            return dispatch.state


async def _refuse_if_served(services: Services, dispatch: Dispatch) -> None:
    try:
        room = await services.livekit(dispatch).look(dispatch.room_name)
    except LiveKitError as error:
        raise RedispatchRefused(
            f"cannot see whether room {dispatch.room_name!r} has its agent: {error}; "
            "dispatching blindly could double it, try again when LiveKit answers"
        ) from error
    agent = our_agent(dispatch, room.agents, fenced=services.fenced(dispatch))
    if agent is not None:
        raise RedispatchRefused(
            f"dispatch {dispatch.dispatch_id} already has its agent {agent.identity} "
            f"in room {dispatch.room_name!r}; a second one would double it"
        )
