"""Ask the LiveKit server about a job's room, with the job's own key."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from livekit import api
from livekit.api.room_service import RoomService

from dispatcher.livekit.client import PEOPLE
from worker_agent.job import Job

logger = logging.getLogger(__name__)

T = TypeVar("T")

# An agent that is leaving, or is about to because it sees no person, waits so long for the answer.
LOOK_TIMEOUT_S: Final = 1.0


async def is_gone(job: Job) -> bool:
    """Return true when LiveKit no longer has the room; false also when its answer does not come."""
    request = api.ListRoomsRequest(names=[job.offer.room_name])
    listed = await _answer(job, lambda room: room.list_rooms(request))
    return listed is not None and not listed.rooms


async def has_people(job: Job) -> bool:
    """Return true when LiveKit lists a person there, and also when its answer does not come.

    LiveKit (1.13.5, `subscriberUpdateInterval`) tells an agent up to 3 s late of a person who
    publishes nothing.
    """
    request = api.ListParticipantsRequest(room=job.offer.room_name)
    listed = await _answer(job, lambda room: room.list_participants(request))
    return listed is None or any(person.kind in PEOPLE for person in listed.participants)


async def _answer(job: Job, ask: Callable[[RoomService], Awaitable[T]]) -> T | None:
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            return await ask(job.ctx.api.room)
    except Exception as error:  # whatever it is: LiveKit has not answered
        logger.warning("cannot see the room", extra={**job.offer.log_fields, "error": str(error)})
        return None
