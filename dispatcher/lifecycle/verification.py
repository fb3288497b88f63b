"""Verify that the agent is in the room, by LiveKit's own list of participants.

What to do next is decided in `domain/verification_steps.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from dispatcher.domain import verification_steps as steps
from dispatcher.domain.models import IN_FLIGHT, Dispatch, State
from dispatcher.domain.rooms import AgentParticipant, RoomView, foreign_agents
from dispatcher.domain.state_machine import ACCEPTED, DISPATCH_CREATED, FAILED, JOINED
from dispatcher.domain.timing import time_to_join
from dispatcher.errors import LiveKitError
from dispatcher.ledger import dispatches, leases, reports
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.celery_messages import VERIFY_TASK
from dispatcher.lifecycle.outcomes import fail, give_up, look, read
from dispatcher.lifecycle.removal import look_again, remove_foreign
from dispatcher.lifecycle.services import Services

# Events after which there is nothing to see yet; they do not wake the verification.
NO_NEWS: Final = frozenset({DISPATCH_CREATED.event, ACCEPTED.event})


async def verify_dispatch(services: Services, dispatch_id: str) -> State:
    """Wait until LiveKit itself lists the agent as ACTIVE, then write `joined`.

    Look whenever the agent reports itself; every `verify_poll_s` where it has no fence and cannot,
    and four times as rarely where it has one and does not; for at most `verify_timeout_s`, and as
    long after an agent server has accepted the job. Without an agent this attempt is given up: the
    next generation starts at once, or waits for an agent server, or the deadline ends the record
    with its true reason. Return the record's state then.
    """
    async with services.wakeups.listen(dispatch_id, but=NO_NEWS) as news:
        dispatch = await read(services, dispatch_id, timeline=False)
        if dispatch.state not in IN_FLIGHT:
            return dispatch.state
        with services.turn(services.verifying, dispatch, VERIFY_TASK) as may_go_on:
            return await _verify(services, dispatch, news) if may_go_on else dispatch.state


async def _verify(services: Services, dispatch: Dispatch, news: asyncio.Event) -> State:
    loop = asyncio.get_running_loop()
    timings, fenced = services.timings, services.fenced(dispatch)
    watch = steps.begin(dispatch, timings, fenced=fenced, now_s=loop.time())
    while True:
        match steps.next_step(dispatch, watch, timings):
            case steps.Look() as what:
                await _see(services, dispatch, watch, what)
            case steps.Wait() as wait:
                woken = await _news_within(news, wait.pause_s)
                before = dispatch
                dispatch = await read(services, dispatch.dispatch_id, timeline=False)
                watch.waited(before, now_s=loop.time(), woken=woken)
            case steps.Join() as join:
                if await _joined(services, dispatch, join.agent, join.room):
                    return State.JOINED
                watch.overtaken = True
            case steps.Extend() as more:
                await _defer(services, dispatch, more.due_in_s)
                watch.until_s = more.until_s
            case steps.Leave() as leave:
                await _defer(services, dispatch, leave.due_in_s)
                return dispatch.state
            case steps.GiveUp():
                return await _no_join(services, dispatch)


async def _news_within(news: asyncio.Event, pause_s: float) -> bool:
    """Wait for news for at most `pause_s`; return whether there was any."""
    with contextlib.suppress(asyncio.TimeoutError):
        await asyncio.wait_for(news.wait(), pause_s)
    woken = news.is_set()
    news.clear()
    return woken


async def _see(
    services: Services, dispatch: Dispatch, watch: steps.Watch, what: steps.Look
) -> None:
    match what:
        case steps.Look.ROOM:
            room = await look(services, dispatch)
            if room is not None and services.fenced(dispatch):
                await remove_foreign(services, dispatch, room)
            watch.room = room or RoomView(agents=(), people=0)
            watch.looked_at_s = watch.now_s
        case steps.Look.AGENT_SERVERS:
            watch.agent_servers = await services.ledger.run(reports.agent_servers())
        case steps.Look.ON_THEIR_WAY:
            agent = dispatch.client_id, dispatch.agent_name, dispatch.deployment
            others, _ = await services.ledger.run(leases.on_their_way(*agent))
            watch.on_their_way = others


async def _defer(services: Services, dispatch: Dispatch, due_in_s: float | None) -> None:
    if due_in_s is not None:
        await services.ledger.run(dispatches.defer(dispatch.dispatch_id, due_in_s=due_in_s))


async def _joined(
    services: Services, dispatch: Dispatch, agent: AgentParticipant, room: RoomView
) -> bool:
    """Write `joined`; return false if the record has moved on."""
    time_to_join_ms = time_to_join(dispatch, agent.joined_at_ms)
    lease_s = leases.LEASE_S if dispatch.agent_identity else leases.FIRST_LEASE_S
    seen = {"agent_identity": agent.identity, "time_to_join_ms": str(time_to_join_ms)}
    done = await services.advance(
        Advance(
            dispatch,
            JOINED,
            fields={
                **seen,
                "joined_at_ms": str(agent.joined_at_ms),
                "failure_reason": "",  # a former reason to wait
                "failure_message": "",
            },
            attempt={"outcome": "joined"},
            times=Times(lease_s=lease_s),
            detail=seen,
        )
    )
    if done.moved and foreign_agents(dispatch, room.joining):
        await look_again(services, dispatch)
    return done.moved


async def _no_join(services: Services, dispatch: Dispatch) -> State:
    servers = await services.ledger.run(reports.agent_servers())
    fenced = services.fenced(dispatch)
    transition, reason = steps.after_no_join(dispatch, servers, fenced=fenced)
    if transition is FAILED:
        given_up = await fail(services, dispatch, reason)
    else:
        # LiveKit has dropped a job that it has offered to no agent server, and would drop others.
        dropped = fenced and dispatch.state is State.DISPATCHED and not dispatch.attempt.placed
        given_up = await give_up(services, dispatch, transition, reason, dropped=dropped)
    # The fence holds without this; it only spares a late agent a useless start. Only the worker
    # that has given the attempt up does it: another one may have seen the agent join.
    if given_up:
        livekit, room_name = services.livekit(dispatch), dispatch.room_name
        with contextlib.suppress(LiveKitError):
            if dispatch.livekit_dispatch_id:
                await livekit.delete_dispatch(dispatch.livekit_dispatch_id, room_name)
        with contextlib.suppress(LiveKitError):
            if dispatch.agent_identity:  # was in the room, and LiveKit may still list it
                await livekit.remove_participant(dispatch.agent_identity, room_name)
    return (await read(services, dispatch.dispatch_id)).state
