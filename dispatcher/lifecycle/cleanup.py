"""Remove the agent of a cancelled dispatch from its room.

A fenced agent finds at its next renewal that it is stale, and leaves by itself. An agent that is
dead or frozen, an agent without a fence, and a job that a worker is just requesting from LiveKit
are removed here. The record stays on the due list until then, so a lost message costs two seconds.
"""

from __future__ import annotations

import logging
from typing import Final

from dispatcher.domain.models import Dispatch, State
from dispatcher.domain.rooms import AgentParticipant
from dispatcher.errors import LiveKitError
from dispatcher.ledger import dispatches
from dispatcher.ledger.cancelling import cleared, serving
from dispatcher.lifecycle.outcomes import log_fields, read, traced
from dispatcher.lifecycle.services import Services
from dispatcher.publish import wake_clearing

logger = logging.getLogger(__name__)

# A worker that was asking LiveKit for the job at the moment of the cancelling has come back by
# then, or has died; so the room is looked at once more.
SETTLED_S: Final = 15.0
LOOK_AGAIN_S: Final = 2.0
# So long is tried for when LiveKit cannot be asked, ever more seldom: hundreds may be cancelled
# while it is away, and an agent of theirs that comes back with it finds out that it is stale.
GIVE_UP_S: Final = 600.0
MORE_SELDOM: Final = 0.25  # of its age


async def clear_away(services: Services, dispatch_id: str) -> State:
    """Take what is left of a cancelled dispatch out of its room; returns where it stands.

    Raises:
        UnknownDispatch: no such record.
        LedgerUnavailable: Redis did not answer; the sweeper comes back to it.
    """
    dispatch = await read(services, dispatch_id)
    if dispatch.state is not State.CANCELLED or not dispatch.clearing:
        return dispatch.state
    # In the verify worker (`celeryconfig.py`), so beside the verifications.
    with services.turn(services.verifying, dispatch, wake=wake_clearing) as may_go_on:
        if not may_go_on:
            return dispatch.state
        with traced("clear_away", dispatch):
            return await _clear_away(services, dispatch)


async def _clear_away(services: Services, dispatch: Dispatch) -> State:
    dispatch_id = dispatch.dispatch_id
    age_s = (dispatch.read_at_ms - dispatch.updated_at_ms) / 1000
    try:
        await _clear(services, dispatch)
    except LiveKitError as error:
        logger.warning("cannot take the agent away", extra=log_fields(dispatch, error=str(error)))
        if age_s < GIVE_UP_S:
            pause_s = max(LOOK_AGAIN_S, age_s * MORE_SELDOM)
            await services.ledger.run(dispatches.defer(dispatch_id, due_in_s=pause_s))
            return State.CANCELLED
        logger.error("an agent may be left in the room", extra=log_fields(dispatch))
    if age_s < SETTLED_S:
        await services.ledger.run(dispatches.defer(dispatch_id, due_in_s=SETTLED_S - age_s))
    else:
        await services.ledger.run(cleared(dispatch))
    return State.CANCELLED


async def _clear(services: Services, dispatch: Dispatch) -> None:
    livekit = services.livekit(dispatch)
    for listed in await livekit.list_dispatch(dispatch.room_name):
        ours = listed.dispatch_id == dispatch.dispatch_id
        # It may have been sent again meanwhile.
        if ours and (listed.generation or 0) <= dispatch.generation:
            await livekit.delete_dispatch(listed.livekit_dispatch_id, dispatch.room_name)
    agents = (await livekit.look(dispatch.room_name)).agents
    if not agents:
        return
    alone = not await services.ledger.run(serving(dispatch))
    for agent in agents:
        if _is_of(dispatch, agent, alone=alone):
            logger.info("putting out", extra=log_fields(dispatch, agent_identity=agent.identity))
            await livekit.remove_participant(agent.identity, dispatch.room_name)


def _is_of(dispatch: Dispatch, agent: AgentParticipant, *, alone: bool) -> bool:
    """True when `agent` is there for this dispatch.

    An agent without the fence goes by its name; unless the room is another dispatch's by now, and
    the agent could be that one's.
    """
    if agent.dispatch_id:
        ours = agent.dispatch_id == dispatch.dispatch_id
        return ours and (agent.generation or 0) <= dispatch.generation
    if agent.identity == dispatch.agent_identity:
        return True
    return alone and agent.agent_name == dispatch.agent_name
