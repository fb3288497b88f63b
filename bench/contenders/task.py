"""The task of (c), (d) and (e) for a session: ask LiveKit for an agent and see it join.

Three tries with waits of 1, 2 and 4 s; a try is `CreateDispatch`, and then a look into the room
every half second, for up to five seconds.
"""

from __future__ import annotations

import asyncio
import json
import os
import time

import aiohttp
from livekit import api
from livekit.protocol.models import ParticipantInfo
from tenacity import (
    AsyncRetrying,
    RetryError,
    retry_if_exception_type,
    stop_after_attempt,
    wait_exponential,
)

AGENT = "bench-plain"
VERIFY_S = 5.0
POLL_S = 0.5


class NotJoinedError(Exception):
    """No agent has come in time."""


def connect() -> api.LiveKitAPI:
    """LiveKit's client, from the environment; belongs to the running event loop."""
    return api.LiveKitAPI(os.environ["LIVEKIT_URL"])


def token(room: str, identity: str) -> str:
    """Make the person's token."""
    grants = api.VideoGrants(room_join=True, room=room)
    return api.AccessToken().with_identity(identity).with_grants(grants).to_jwt()


async def get_agent(livekit: api.LiveKitAPI, room: str) -> bool:
    """Bring an agent into the room; says on standard output how that ended."""
    tries = AsyncRetrying(
        stop=stop_after_attempt(3),
        wait=wait_exponential(min=1, max=4),
        retry=retry_if_exception_type(
            (NotJoinedError, aiohttp.ClientError, api.TwirpError, TimeoutError)
        ),
    )
    try:
        await tries(_try, livekit, room)
    except RetryError:
        _say("failed", room)
        return False
    _say("joined", room)
    return True


async def _try(livekit: api.LiveKitAPI, room: str) -> None:
    request = api.CreateAgentDispatchRequest(agent_name=AGENT, room=room)
    await livekit.agent_dispatch.create_dispatch(request)
    until = time.monotonic() + VERIFY_S
    while time.monotonic() < until:
        listed = await livekit.room.list_participants(api.ListParticipantsRequest(room=room))
        if any(
            one.kind == ParticipantInfo.AGENT and one.state == ParticipantInfo.ACTIVE
            for one in listed.participants
        ):
            return
        await asyncio.sleep(POLL_S)
    raise NotJoinedError(room)


def _say(what: str, room: str) -> None:
    print(json.dumps({"event": what, "room": room, "at_ms": time.time() * 1000}), flush=True)
