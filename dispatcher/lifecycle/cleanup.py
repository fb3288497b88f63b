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
from dispatcher.domain.timing import unchanged_s
from dispatcher.errors import LiveKitError
from dispatcher.ledger import dispatches
from dispatcher.ledger.celery_messages import CLEAR_TASK
from dispatcher.ledger.endings import cleared
from dispatcher.lifecycle.outcomes import log_fields, read
from dispatcher.lifecycle.services import Services

logger = logging.getLogger(__name__)

# The room is looked at once more after this: a worker that was requesting the job from LiveKit at
# the moment of the cancel has returned or died by then.
SETTLED_S: Final = 15.0
LOOK_AGAIN_S: Final = 2.0
# While LiveKit does not answer, it is asked for so long, at intervals of a quarter of that time so
# far: hundreds of dispatches may be cancelled, and an agent that comes back finds that it is stale.
GIVE_UP_S: Final = 600.0


async def clear_away(services: Services, dispatch_id: str) -> State:
    """Remove what is left of a cancelled dispatch from its room; return the record's state."""
    dispatch = await read(services, dispatch_id)
    if dispatch.state is not State.CANCELLED or not dispatch.clearing:
        return dispatch.state
    # The task runs in the verify worker, so it shares the verifications' limit.
    with services.turn(services.verifying, dispatch, CLEAR_TASK) as may_go_on:
        return await _clear_away(services, dispatch) if may_go_on else dispatch.state


async def _clear_away(services: Services, dispatch: Dispatch) -> State:
    dispatch_id = dispatch.dispatch_id
    age_s = unchanged_s(dispatch)
    try:
        await _clear(services, dispatch)
    except LiveKitError as error:
        logger.warning("cannot take the agent away", extra=log_fields(dispatch, error=str(error)))
        if age_s < GIVE_UP_S:
            pause_s = max(LOOK_AGAIN_S, age_s / 4)
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
        # A later generation may have been sent meanwhile.
        if ours and (listed.generation or 0) <= dispatch.generation:
            await livekit.delete_dispatch(listed.livekit_dispatch_id, dispatch.room_name)
    agents = (await livekit.look(dispatch.room_name)).agents
    if not agents:
        return
    alone = not await services.ledger.run(dispatches.serving(dispatch))
    for agent in agents:
        if _is_of(dispatch, agent, alone=alone):
            logger.info("putting out", extra=log_fields(dispatch, agent_identity=agent.identity))
            await livekit.remove_participant(agent.identity, dispatch.room_name)


def _is_of(dispatch: Dispatch, agent: AgentParticipant, *, alone: bool) -> bool:
    """Return whether `agent` is there for this dispatch.

    An agent without a fence is matched by its name, unless another dispatch has the room by now:
    the agent could then be that one's.
    """
    if agent.dispatch_id:
        ours = agent.dispatch_id == dispatch.dispatch_id
        return ours and (agent.generation or 0) <= dispatch.generation
    if agent.identity == dispatch.agent_identity:
        return True
    return alone and agent.agent_name == dispatch.agent_name
