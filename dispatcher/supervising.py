"""What becomes of a session whose agent has fallen silent?"""

from __future__ import annotations

import contextlib
import logging
from typing import Final

from dispatcher import leases, ledger
from dispatcher.decisions import Reason, Verdict, judge, losses_in_a_row, surplus_agents
from dispatcher.errors import LiveKitError
from dispatcher.livekit import RoomView
from dispatcher.models import AGENT_LOST, ROOM_OVER, Dispatch, FailureReason, State
from dispatcher.outcomes import fail, log_fields, read
from dispatcher.runtime import Services

logger = logging.getLogger(__name__)

# How soon a session is looked at again when LiveKit cannot be asked, or the agent renews nothing.
LOOK_AGAIN_S: Final = 2.0


async def supervise(services: Services, dispatch_id: str) -> State:
    """Look after a joined dispatch whose lease has run out; returns where it stands then.

    With a person in the room a new generation takes over, and the old agent, dead or frozen, is
    put out; with nobody in the room the dispatch has ended.

    Raises:
        UnknownDispatch: no such record.
        LedgerUnavailable: Redis did not answer; the sweeper comes back to it.
    """
    dispatch = await read(services, dispatch_id)
    if dispatch.state is not State.JOINED:
        return dispatch.state
    try:
        room = await services.livekit(dispatch).look(dispatch.room_name)
    except LiveKitError as error:
        logger.warning("cannot see the room", extra=log_fields(dispatch, error=str(error)))
        await services.ledger.run(leases.extend(dispatch_id, lease_s=LOOK_AGAIN_S))
        return State.JOINED
    fenced = not services.unfenced(dispatch.agent_name)
    verdict = judge(dispatch, room, fenced=fenced, max_losses=services.settings.max_losses)
    if verdict is Verdict.ALIVE:
        await services.ledger.run(leases.extend(dispatch_id, lease_s=LOOK_AGAIN_S))
        await _put_out(services, dispatch, room, all_of_them=False)
    elif verdict is Verdict.OVER:
        if await _end(services, dispatch):
            await _put_out(services, dispatch, room, all_of_them=True)
    elif verdict is Verdict.PARK:
        reason = Reason(
            code=FailureReason.AGENT_LOST,
            message=f"{losses_in_a_row(dispatch)} agents in a row died after joining; look for "
            f"job {dispatch.job_id} in the log of agent server {dispatch.agent_server_id}",
        )
        if await fail(services, dispatch, reason):
            await _put_out(services, dispatch, room, all_of_them=True)
    elif await _replace(services, dispatch):
        await _put_out(services, dispatch, room, all_of_them=True)
        return State.QUEUED
    return (await read(services, dispatch_id)).state


async def _end(services: Services, dispatch: Dispatch) -> bool:
    done = await services.ledger.run(
        ledger.advance(
            dispatch,
            ROOM_OVER,
            detail={"reason": "nobody is in the room any more"},
            retention_s=services.common.retention_s,
        )
    )
    if done.moved:
        logger.info("ended", extra=log_fields(dispatch))
    return done.moved


async def _replace(services: Services, dispatch: Dispatch) -> bool:
    done = await services.ledger.run(
        ledger.advance(
            dispatch,
            AGENT_LOST,
            due_in_s=services.common.wake_grace_s,
            attempt={"outcome": "lost", "reason": "the agent fell silent"},
            detail={"agent_identity": dispatch.agent_identity},
            deadline_in_s=services.clients.by_id(dispatch.client_id).deadline_s,
            metrics={"agents_lost": 1},
            losses=losses_in_a_row(dispatch),
        )
    )
    if done.moved:
        logger.warning("agent lost", extra=log_fields(dispatch, job_id=dispatch.job_id))
    return done.moved


async def _put_out(
    services: Services, dispatch: Dispatch, room: RoomView, *, all_of_them: bool
) -> None:
    """Put the agents of this dispatch out of the room, or all but the one it stands by."""
    livekit = services.livekit(dispatch)
    surplus = surplus_agents(dispatch, room.agents)
    if all_of_them:
        surplus += [a for a in room.agents if a.identity == dispatch.agent_identity]
    with contextlib.suppress(LiveKitError):
        if all_of_them and dispatch.livekit_dispatch_id:
            await livekit.delete_dispatch(dispatch.livekit_dispatch_id, dispatch.room_name)
        for agent in surplus:
            logger.info("putting out", extra=log_fields(dispatch, agent_identity=agent.identity))
            await livekit.remove_participant(agent.identity, dispatch.room_name)
