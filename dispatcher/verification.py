"""Is the agent in the room, by LiveKit's own word?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from dispatcher import leases, ledger, reports
from dispatcher.advance import Advance, Times
from dispatcher.decisions import (
    Fail,
    Redispatch,
    after_no_join,
    eligible,
    foreign_agents,
    is_silent,
    is_starting,
    offer_is_lost,
    our_agent,
    silent_in_s,
    time_is_up,
    time_to_join,
)
from dispatcher.dispatching import VERIFY_GRACE_S
from dispatcher.errors import LiveKitError
from dispatcher.livekit import AgentParticipant, RoomView
from dispatcher.models import (
    ACCEPTED,
    DISPATCH_CREATED,
    END_MARGIN_S,
    IN_FLIGHT,
    JOINED,
    NEXT_GENERATION,
    WAIT,
    Dispatch,
    State,
)
from dispatcher.outcomes import fail, give_up, log_fields, read, traced
from dispatcher.removing import LOOK_AGAIN_S, remove_foreign
from dispatcher.runtime import Services

logger = logging.getLogger(__name__)

# LiveKit lists an agent a moment after the agent itself says that it is connected: looked for so
# soon, and each time after twice as long.
CONNECTED_POLL_S: Final = 0.05
# An agent with a fence says when it is connected, so until then LiveKit is asked only every so many
# polls, and so is the record once the job is claimed: of 40 asked for at once the last ones join
# after some seconds, and each needs the CPU for it.
UNCONNECTED_POLLS: Final = 4
# Of 40 asked for at once on two cores, LiveKit offered the last ones after 2.5 s.
OFFER_TIMEOUT_EACH_S: Final = 0.1
# After these there is nothing to see yet, and nothing to do sooner than without them.
NO_NEWS: Final = frozenset({DISPATCH_CREATED.event, ACCEPTED.event})
# Agent servers with a load report of their own are sent a few at a time, which LiveKit offers
# within 0.25 s; and they refuse by themselves, without a word to us, whenever that load is high.
OWN_LOAD_OFFER_TIMEOUT_S: Final = 0.8
# How often the room of a job is looked at that starts slowly; its agent says when it has connected.
STARTING_LOOK_S: Final = 1.0


async def verify_dispatch(services: Services, dispatch_id: str) -> State:
    """Wait until LiveKit itself lists the agent as ACTIVE, then write `joined`.

    Looks whenever the agent reports itself; every `verify_poll_s` where it has no fence and cannot,
    and four times as rarely where it has one and does not; for at most `verify_timeout_s`, and as
    long after an agent server has accepted the job. Without an agent this attempt is given up: the
    next generation starts at once, or waits for an agent server, or the deadline ends the record
    with its true reason. Returns where the record stands then.

    Raises:
        UnknownDispatch: no such record.
        LedgerUnavailable: Redis did not answer; the sweeper comes back to it.
    """
    async with services.wakeups.listen(dispatch_id, but=NO_NEWS) as news:
        dispatch = await read(services, dispatch_id)
        if dispatch.state not in IN_FLIGHT:
            return dispatch.state
        with services.turn(services.verifying, dispatch) as may_go_on:
            if not may_go_on:
                return dispatch.state
            with traced("verify_dispatch", dispatch):
                return await _verify(services, dispatch, news)


async def _verify(services: Services, dispatch: Dispatch, news: asyncio.Event) -> State:
    loop = asyncio.get_running_loop()
    until = loop.time() + _time_s(services, dispatch)
    fenced = not services.unfenced(dispatch.agent_name)
    poll_s = services.settings.verify_poll_s
    rare_poll_s = poll_s * (UNCONNECTED_POLLS if fenced else 1)
    connected_poll_s = CONNECTED_POLL_S
    looked_at = loop.time()
    woken = False
    while True:
        if is_silent(dispatch):
            return await _no_join(services, dispatch)
        now = loop.time()
        next_look = looked_at + rare_poll_s
        if dispatch.agent_identity or woken or now >= min(next_look, until):
            view = await _look(services, dispatch)
            agent = our_agent(dispatch, view.agents, fenced=fenced)
            if agent is not None and await _joined(services, dispatch, agent, view):
                return State.JOINED
            looked_at = now
        if now >= until:
            if await _left_to_others(services, dispatch):
                return dispatch.state
            until += await _more_time_s(services, dispatch, view)
        if now >= until or await _dropped(services, dispatch):
            return await _no_join(services, dispatch)
        pause = min(rare_poll_s, max(poll_s, silent_in_s(dispatch)))
        if dispatch.agent_identity:
            pause, connected_poll_s = min(connected_poll_s, poll_s), connected_poll_s * 2
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(news.wait(), min(pause, until - now))
        woken = news.is_set()
        news.clear()
        dispatch = await read(services, dispatch.dispatch_id)
        if dispatch.state not in IN_FLIGHT:
            return dispatch.state


def _time_s(services: Services, dispatch: Dispatch) -> float:
    """How long to wait for the agent, at first; one that starts slowly is only looked at."""
    timeout_s = services.settings.verify_timeout_s
    if is_starting(dispatch) and dispatch.read_at_ms - dispatch.updated_at_ms > timeout_s * 1000:
        return 0.0
    return min(timeout_s, max(0.0, dispatch.remaining_s - END_MARGIN_S))


async def _left_to_others(services: Services, dispatch: Dispatch) -> bool:
    """True when this verification need not see the end of it.

    A dispatching record means that this message was one too many: its worker is still at it. Of a
    job that starts slowly its agent says when it has connected, and until then it is looked at now
    and then, so that it holds no worker.
    """
    if time_is_up(dispatch):
        return False
    if is_starting(dispatch):
        step = ledger.defer(dispatch.dispatch_id, due_in_s=STARTING_LOOK_S)
        await services.ledger.run(step)
        return True
    return dispatch.state is State.DISPATCHING


async def _more_time_s(services: Services, dispatch: Dispatch, view: RoomView) -> float:
    """What an agent that was accepted late has left of the time that every agent has to join.

    One whose connection is being made has twice that time: it is slow because its machine is busy,
    and another in its place would be slower. Upgrades under load replaced healthy agents so.
    """
    timeout_s = services.settings.verify_timeout_s
    fenced = not services.unfenced(dispatch.agent_name)
    joining = our_agent(dispatch, view.joining, fenced=fenced) is not None
    since_s = (dispatch.read_at_ms - dispatch.updated_at_ms) / 1000
    left_s = min(timeout_s * (1 + joining) - since_s, dispatch.remaining_s - END_MARGIN_S)
    if dispatch.state is not State.ACCEPTED or left_s <= 0:
        return 0.0
    if joining:
        step = ledger.defer(dispatch.dispatch_id, due_in_s=left_s + VERIFY_GRACE_S)
        await services.ledger.run(step)
    return left_s


async def _dropped(services: Services, dispatch: Dispatch) -> bool:
    """True when there is no use in waiting on: nobody was asked, and somebody would have been."""
    if services.unfenced(dispatch.agent_name):
        return False
    since_s = (dispatch.read_at_ms - dispatch.updated_at_ms) / 1000
    timeout_s = min(OWN_LOAD_OFFER_TIMEOUT_S, services.settings.offer_timeout_s)
    if not offer_is_lost(dispatch, since_dispatched_s=since_s, offer_timeout_s=timeout_s):
        return False
    servers = await services.ledger.run(reports.agent_servers())
    able = eligible(dispatch, servers)
    if not able or any(server.takes is None for server in able):
        timeout_s = services.settings.offer_timeout_s
    if not offer_is_lost(dispatch, since_dispatched_s=since_s, offer_timeout_s=timeout_s):
        return False
    # In a burst LiveKit comes to some of them seconds later, and asking again would only add to it.
    others, _ = await services.ledger.run(
        leases.on_their_way(dispatch.client_id, dispatch.agent_name, dispatch.deployment)
    )
    timeout_s += others * OFFER_TIMEOUT_EACH_S
    return offer_is_lost(dispatch, since_dispatched_s=since_s, offer_timeout_s=timeout_s)


async def _look(services: Services, dispatch: Dispatch) -> RoomView:
    try:
        view = await services.livekit(dispatch).look(dispatch.room_name)
    except LiveKitError as error:
        logger.warning("cannot see the room", extra=log_fields(dispatch, error=str(error)))
        return RoomView(agents=(), people=0)
    if not services.unfenced(dispatch.agent_name):
        await remove_foreign(services, dispatch, view)
    return view


async def _joined(
    services: Services, dispatch: Dispatch, agent: AgentParticipant, view: RoomView
) -> bool:
    """Write `joined`; false when the record has moved on."""
    time_to_join_ms = time_to_join(dispatch, agent.joined_at_ms)
    done = await services.ledger.run(
        ledger.advance(
            Advance(
                dispatch,
                JOINED,
                fields={
                    "agent_identity": agent.identity,
                    "joined_at_ms": str(agent.joined_at_ms),
                    "time_to_join_ms": str(time_to_join_ms),
                    "failure_reason": "",  # what it may have waited for before
                    "failure_message": "",
                },
                attempt={"outcome": "joined"},
                times=Times(
                    lease_s=leases.LEASE_S if dispatch.agent_identity else leases.FIRST_LEASE_S
                ),
                detail={"agent_identity": agent.identity, "time_to_join_ms": str(time_to_join_ms)},
            )
        )
    )
    if done.moved and foreign_agents(dispatch, view.joining):
        await services.ledger.run(leases.extend(dispatch.dispatch_id, lease_s=LOOK_AGAIN_S))
    return done.moved


async def _no_join(services: Services, dispatch: Dispatch) -> State:
    servers = await services.ledger.run(reports.agent_servers())
    fenced = not services.unfenced(dispatch.agent_name)
    decision = after_no_join(dispatch, servers, fenced=fenced)
    if isinstance(decision, Fail):
        given_up = await fail(services, dispatch, decision.reason)
    else:
        transition = NEXT_GENERATION if isinstance(decision, Redispatch) else WAIT
        # Asked for and offered to nobody: LiveKit has dropped it, and would drop others too.
        dropped = fenced and dispatch.state is State.DISPATCHED
        given_up = await give_up(
            services, dispatch, transition, decision.reason, {}, dropped=dropped
        )
    with contextlib.suppress(LiveKitError):
        # The fence holds without this; it only spares the late agent a start for nothing.
        # Only by who has given the attempt up: somebody else may have seen its agent join.
        if given_up and dispatch.livekit_dispatch_id:
            await services.livekit(dispatch).delete_dispatch(
                dispatch.livekit_dispatch_id, dispatch.room_name
            )
    with contextlib.suppress(LiveKitError):
        if given_up and dispatch.agent_identity:  # it has been there, and LiveKit may list it still
            await services.livekit(dispatch).remove_participant(
                dispatch.agent_identity, dispatch.room_name
            )
    return (await read(services, dispatch.dispatch_id)).state
