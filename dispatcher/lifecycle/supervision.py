"""Supervise a joined session whose agent has fallen silent: renew, replace, end or fail it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from dispatcher.domain.agent_losses import Verdict, judge, losses_in_a_row
from dispatcher.domain.failure_reasons import Reason
from dispatcher.domain.models import Dispatch, FailureReason, State
from dispatcher.domain.rooms import RoomView, agent_to_keep
from dispatcher.domain.state_machine import AGENT_ADOPTED, AGENT_LOST, CAME_BACK
from dispatcher.domain.timing import STILL_TO_COME_S
from dispatcher.ledger import celery_messages, endings, leases
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.celery_messages import SUPERVISE_TASK
from dispatcher.ledger.leases import Renewal
from dispatcher.lifecycle.outcomes import fail, look, read
from dispatcher.lifecycle.precedence import is_unattended
from dispatcher.lifecycle.removal import remove_all, remove_others
from dispatcher.lifecycle.services import Services

# After so long a session is looked at again when LiveKit does not answer.
LOOK_AGAIN_S: Final = 2.0
SILENT: Final = "the agent fell silent"


async def supervise(services: Services, dispatch_id: str, *, good_till_ms: int = 0) -> State:
    """Supervise a joined dispatch whose lease has expired; return the record's state.

    With a person in the room, or still to come, a new generation takes over, and the old agent,
    dead or frozen, is removed. When every person has left, the dispatch ends. After `good_till_ms`,
    by the ledger's clock, the sweeper has sent another message (0: none).
    """
    dispatch = await read(services, dispatch_id)
    if dispatch.state not in (State.JOINED, State.LEAVING):
        return dispatch.state
    if good_till_ms and dispatch.read_at_ms > good_till_ms:
        return dispatch.state
    with services.turn(services.dispatching, dispatch, SUPERVISE_TASK) as may_go_on:
        return await _supervise(services, dispatch) if may_go_on else dispatch.state


async def _supervise(services: Services, dispatch: Dispatch) -> State:
    dispatch_id = dispatch.dispatch_id
    room = await look(services, dispatch)
    if room is None:
        await services.ledger.run(leases.look_again(dispatch_id, in_s=LOOK_AGAIN_S))
        return dispatch.state
    fenced = services.fenced(dispatch)
    verdict = judge(
        dispatch,
        room,
        fenced=fenced,
        max_losses=services.settings.max_losses,
        abandon_after_s=services.common.abandon_after_s,
    )
    over = False
    if verdict is Verdict.ALIVE:
        await services.ledger.run(leases.looked(dispatch))
        if fenced:  # the lease has not expired: the look had another cause
            await remove_others(services, dispatch, room)
        else:
            await _vouch(services, dispatch, room)
    elif verdict is Verdict.OVER:
        over = await _end(services, dispatch)
        if not over:  # a caller has asked again meanwhile, and waits for an agent
            await services.ledger.run(leases.look_again(dispatch_id, in_s=0.0))
    elif verdict is Verdict.PARK:
        reason = Reason(
            code=FailureReason.AGENT_LOST,
            message=f"{losses_in_a_row(dispatch)} agents in a row were lost after joining"
            + (f", the last one: {dispatch.loss}" if dispatch.loss else "")
            + f"; look for job {dispatch.job_id} in the log of agent server "
            f"{dispatch.agent_server_id}",
        )
        over = await fail(services, dispatch, reason)
    elif await _replace(services, dispatch, room):
        await remove_all(services, dispatch, room)
        return State.QUEUED
    elif dispatch.state is State.LEAVING:
        # Another dispatch serves the people who are back: this one's agent hangs beside its agent.
        over = await _end(services, dispatch)
    if over:
        await remove_all(services, dispatch, room)
    return (await read(services, dispatch_id)).state


async def _end(services: Services, dispatch: Dispatch) -> bool:
    # One that is leaving is not asked for again: its callers get another dispatch.
    leaving = dispatch.state is State.LEAVING
    step = endings.everybody_left(
        dispatch,
        retention_s=services.common.retention_s,
        reason=_why_over(dispatch),
        unless_asked_for_s=None if leaving else STILL_TO_COME_S,
    )
    return (await services.ledger.run(step)).moved


def _why_over(dispatch: Dispatch) -> str:
    """Return why a session is over: the reason of a leaving agent, else the empty room."""
    said = [e.detail.get("reason", "") for e in dispatch.timeline if e.event == "agent_leaving"]
    over = "nobody is in the room any more"
    if dispatch.state is State.LEAVING and said:
        over = said[-1]
    return f"{over}; its agent: {dispatch.loss}" if dispatch.loss else over


async def _replace(services: Services, dispatch: Dispatch, room: RoomView) -> bool:
    detail = {"agent_identity": dispatch.agent_identity, "reason": dispatch.loss or SILENT}
    alone = is_unattended(dispatch, room)
    if alone:
        detail["people"] = "0"
    done = await services.advance(
        Advance(
            dispatch,
            CAME_BACK if dispatch.state is State.LEAVING else AGENT_LOST,
            due_in_s=services.common.wake_grace_s,
            attempt={"outcome": "lost", "reason": dispatch.loss or SILENT},
            fields={"unattended": "1" if alone else ""},
            detail=detail,
            times=Times(deadline_in_s=services.clients.by_id(dispatch.client_id).deadline_s),
            losses=losses_in_a_row(dispatch),
            wake=celery_messages.dispatch(dispatch.dispatch_id, dispatch.room_name),
        )
    )
    return done.moved


async def _vouch(services: Services, dispatch: Dispatch, room: RoomView) -> None:
    """Renew for an agent that LiveKit lists and that reports nothing; or cancel or end."""
    agent = agent_to_keep(dispatch, room.agents)
    if agent is not None and agent.identity != dispatch.agent_identity:
        # The record's agent has gone, and another of its name is there.
        identity = {"agent_identity": agent.identity}
        adopted = Advance(dispatch, AGENT_ADOPTED, fields=identity, detail=identity)
        if not (await services.advance(adopted)).applied:
            return
        dispatch = replace(dispatch, agent_identity=agent.identity)
    renewal = await services.ledger.run(
        leases.renew(
            dispatch,
            job_id=dispatch.job_id,
            people=room.people,
            abandon_after_s=services.common.abandon_after_s,
            deserted_after_s=services.common.deserted_after_s,
        )
    )
    if renewal is Renewal.ABANDONED:
        over = await _cancel(services, dispatch)
    else:
        over = renewal is Renewal.DESERTED and await _end(services, dispatch)
    if over:
        await remove_all(services, dispatch, room)
    elif renewal is Renewal.OK:
        await remove_others(services, dispatch, room)


async def _cancel(services: Services, dispatch: Dispatch) -> bool:
    step = endings.nobody_came(
        dispatch,
        waited_s=services.common.abandon_after_s,
        retention_s=services.common.retention_s,
    )
    return (await services.ledger.run(step)).moved
