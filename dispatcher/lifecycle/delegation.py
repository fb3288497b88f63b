"""Settle a delegated session, whose agent LiveKit was to bring while Redis was away.

Its participant token named the agent. LiveKit dispatches such an agent when the person joins, if
that join creates the room, and promises nothing. The record is written when Redis is back.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from dispatcher.domain.models import PARTICIPANT_TOKEN_TTL_S, Dispatch
from dispatcher.domain.rooms import our_agent
from dispatcher.domain.state_machine import JOINED
from dispatcher.domain.timing import unchanged_s
from dispatcher.errors import LiveKitError
from dispatcher.ledger import dispatches, endings, leases
from dispatcher.ledger.advance import Advance, Times
from dispatcher.lifecycle.outcomes import log_fields, look
from dispatcher.lifecycle.services import Services

logger = logging.getLogger(__name__)

# A fenced agent that is in the room reports itself within a second of Redis's return.
ADOPTION_S: Final = 5.0
LOOK_AGAIN_S: Final = 0.5
# A caller who asked again before Redis was back, or since, is in the room within this time.
STILL_TO_JOIN_S: Final = 5.0


async def settled(services: Services, dispatch: Dispatch) -> bool:
    """Return false when the dispatcher must dispatch an agent; true when nothing is to be done now.

    An agent that LiveKit has dispatched takes the record over by itself
    (`worker_agent/adoption.py`); an agent without our request filter is found here.
    """
    room = await look(services, dispatch)
    if room is None:
        return False  # the dispatch's own tries record the error, and look before they ask
    fenced = services.fenced(dispatch)
    agent = our_agent(dispatch, room.agents, fenced=fenced)
    if agent is not None and not fenced:
        joined = Advance(
            dispatch,
            JOINED,
            fields={"agent_identity": agent.identity, "joined_at_ms": str(agent.joined_at_ms)},
            attempt={"outcome": "joined"},
            times=Times(lease_s=leases.LEASE_S),
            detail={"agent_identity": agent.identity, "by": "its participant token"},
        )
        return (await services.advance(joined)).moved
    age_s = unchanged_s(dispatch)
    if agent is not None:
        await services.ledger.run(dispatches.defer(dispatch.dispatch_id, due_in_s=LOOK_AGAIN_S))
        return age_s < ADOPTION_S
    why_over = await _why_over(services, dispatch) if room.people == 0 else ""
    if not why_over:
        return False
    if age_s < STILL_TO_JOIN_S:
        await services.ledger.run(dispatches.defer(dispatch.dispatch_id, due_in_s=LOOK_AGAIN_S))
        return True
    over = endings.everybody_left(
        dispatch,
        retention_s=services.common.retention_s,
        reason=why_over,
        unless_asked_for_s=STILL_TO_JOIN_S,
    )
    return (await services.ledger.run(over)).moved


async def _why_over(services: Services, dispatch: Dispatch) -> str:
    """Return why nobody is to come into an empty room; empty when the person may still come."""
    asked_before_s = (dispatch.read_at_ms - dispatch.requested_at_ms) / 1000
    if asked_before_s > PARTICIPANT_TOKEN_TTL_S:
        return "nobody is in the room, and the token has expired"
    livekit = services.livekit(dispatch)
    try:
        listed = await livekit.list_dispatch(dispatch.room_name)
        if any(each.dispatch_id == dispatch.dispatch_id for each in listed):
            # The person has joined: that has LiveKit dispatch the token's agent. LiveKit has the
            # room a moment before it lists the person, so look again.
            await asyncio.sleep(LOOK_AGAIN_S)
            if (await livekit.look(dispatch.room_name)).people == 0:
                return "everybody has left while Redis was away"
    except LiveKitError as error:
        logger.warning("cannot see the room", extra=log_fields(dispatch, error=str(error)))
    return ""
