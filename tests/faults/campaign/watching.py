"""LiveKit's lists of the agents in every room, twice a second, and which of them live."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import aiohttp
from livekit import api
from livekit.protocol.models import ParticipantInfo

from tests.support.stacks import RunningStack

from .journal import Journal, Tail
from .liveness import Liveness

LOOK_EVERY_S = 0.5  # each look of each room costs the driver and LiveKit a call
_ANSWERS_WITHIN_S = 2.0
_AT_ONCE = 8

_Listed = dict[str, int] | None  # identity -> joined_at_ms; None: LiveKit did not say


class Watch:
    """LiveKit's participant lists of all rooms that are watched, written down as they change."""

    def __init__(self, stack: RunningStack, journal: Journal, join_log: Path) -> None:
        self._stack = stack
        self._journal = journal
        self._join_log = Tail(join_log)
        self._seen: dict[str, _Listed] = {}
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self.liveness = Liveness()

    async def run(self) -> None:
        """Look until cancelled."""
        async with livekit_api(self._stack) as livekit:
            loop = asyncio.get_running_loop()
            while True:
                next_look = loop.time() + LOOK_EVERY_S
                for event in self._join_log.news():
                    self.liveness.take(event)
                await asyncio.gather(*(self._look(livekit, room) for room in list(self._seen)))
                await asyncio.sleep(max(0.02, next_look - loop.time()))

    def begin(self, room: str) -> None:
        """Watch this room from now on."""
        self._seen.setdefault(room, None)

    def end(self, room: str) -> None:
        """Watch it no longer."""
        self._seen.pop(room, None)

    def listed(self, room: str) -> _Listed:
        """What LiveKit said last."""
        return self._seen.get(room)

    def living_agents(self, room: str) -> list[str]:
        """Agents that LiveKit lists and that are not known to be dead."""
        return [agent for agent in self._seen.get(room) or {} if self.liveness.alive_now(agent)]

    async def _look(self, livekit: api.LiveKitAPI, room: str) -> None:
        async with self._at_once:
            listed = await list_agents(livekit, room)
        if room in self._seen and listed != self._seen[room]:
            self._journal.write("listed", room=room, agents=listed)
            self._seen[room] = listed


def livekit_api(stack: RunningStack) -> api.LiveKitAPI:
    """LiveKit's own API, for looking only."""
    return api.LiveKitAPI(
        stack.livekit_url,
        stack.livekit_api_key,
        stack.livekit_api_secret,
        timeout=aiohttp.ClientTimeout(total=_ANSWERS_WITHIN_S),
        failover=False,
    )


async def list_agents(livekit: api.LiveKitAPI, room: str) -> _Listed:
    """The ACTIVE agents of a room and when each joined; None when LiveKit does not say."""
    with contextlib.suppress(api.TwirpError, aiohttp.ClientError, asyncio.TimeoutError):
        answer: Any = await livekit.room.list_participants(api.ListParticipantsRequest(room=room))
        return {
            one.identity: one.joined_at_ms
            for one in answer.participants
            if one.kind == ParticipantInfo.AGENT and one.state == ParticipantInfo.ACTIVE
        }
    return None
