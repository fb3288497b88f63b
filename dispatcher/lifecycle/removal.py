"""Remove agents from a room: surplus ones, other backends' and those of a dispatch that is over."""

from __future__ import annotations

import contextlib
import logging

from dispatcher.domain.models import Dispatch, Transition
from dispatcher.domain.rooms import AgentParticipant, RoomView, foreign_agents, surplus_agents
from dispatcher.domain.state_machine import FOREIGN_AGENT, SURPLUS_AGENT
from dispatcher.errors import LiveKitError
from dispatcher.ledger import leases
from dispatcher.ledger.advance import Advance
from dispatcher.lifecycle.outcomes import log_fields
from dispatcher.lifecycle.services import Services

logger = logging.getLogger(__name__)


async def remove_others(services: Services, dispatch: Dispatch, room: RoomView) -> None:
    """Remove every agent of this name but the dispatch's own; each removal is counted."""
    fenced = services.fenced(dispatch)
    for agent in surplus_agents(dispatch, room.agents, fenced=fenced):
        await _remove_and_tell(services, dispatch, agent, SURPLUS_AGENT)
    if fenced:
        await remove_foreign(services, dispatch, room)


async def remove_foreign(services: Services, dispatch: Dispatch, room: RoomView) -> None:
    """Remove the agents of this fenced agent's name that another backend has dispatched.

    While one is still joining, the room is looked at again.
    """
    for agent in foreign_agents(dispatch, room.agents):
        await _remove_and_tell(services, dispatch, agent, FOREIGN_AGENT)
    if foreign_agents(dispatch, room.joining):
        await look_again(services, dispatch)


async def look_again(services: Services, dispatch: Dispatch) -> None:
    """Have a worker look into the room of a joined dispatch again in a second."""
    await services.ledger.run(leases.look_again(dispatch.dispatch_id, in_s=1.0))


async def remove_all(services: Services, dispatch: Dispatch, room: RoomView) -> None:
    """Delete the dispatch at LiveKit and remove its agents from the room, dead or alive."""
    livekit = services.livekit(dispatch)
    if dispatch.livekit_dispatch_id:
        with contextlib.suppress(LiveKitError):
            await livekit.delete_dispatch(dispatch.livekit_dispatch_id, dispatch.room_name)
    its_own = [a for a in room.agents if a.identity == dispatch.agent_identity]
    surplus = surplus_agents(dispatch, room.agents, fenced=services.fenced(dispatch))
    for agent in [*surplus, *its_own]:
        logger.info("putting out", extra=log_fields(dispatch, agent_identity=agent.identity))
        await _remove(services, dispatch, agent.identity)


async def _remove_and_tell(
    services: Services, dispatch: Dispatch, agent: AgentParticipant, transition: Transition
) -> None:
    if not await _remove(services, dispatch, agent.identity):
        await look_again(services, dispatch)
        return
    await services.advance(
        Advance(
            dispatch,
            transition,
            detail={"agent_identity": agent.identity},
            count_once=f"{transition.event}:{agent.identity}",
        )
    )


async def _remove(services: Services, dispatch: Dispatch, identity: str) -> bool:
    try:
        await services.livekit(dispatch).remove_participant(identity, dispatch.room_name)
    except LiveKitError as error:
        logger.warning("cannot put an agent out", extra=log_fields(dispatch, error=str(error)))
        return False
    return True
