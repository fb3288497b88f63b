"""A participant in a room, who sees the agents there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from livekit import rtc

from dispatcher.selftest.results import Failed

CONNECT_S: Final = 10.0
_LOOK_S: Final = 0.05


class Participant:
    """A participant in a room."""

    def __init__(self, room: rtc.Room) -> None:
        self._room = room

    def agents(self) -> list[str]:
        """Return the identities of the agents in the room now."""
        return sorted(
            other.identity
            for other in self._room.remote_participants.values()
            if other.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
        )

    async def sees_agent(self, *, within_s: float) -> bool:
        """Wait for an agent; return false if none is there in time."""
        return await self._wait(bool, within_s=within_s)

    async def sees_no_agent(self, *, within_s: float) -> bool:
        """Wait until all agents have left; return false if one is still there in the end."""
        return await self._wait(lambda agents: not agents, within_s=within_s)

    async def keeps_one_agent(self, *, for_s: float) -> bool:
        """Return whether there was exactly one agent during all of `for_s`."""
        return not await self._wait(lambda agents: len(agents) != 1, within_s=for_s)

    async def _wait(self, met: Callable[[list[str]], bool], *, within_s: float) -> bool:
        until = time.monotonic() + within_s
        while not met(self.agents()):
            if time.monotonic() > until:
                return False
            await asyncio.sleep(_LOOK_S)
        return True


@contextlib.asynccontextmanager
async def in_room(server_url: str, token: str) -> AsyncIterator[Participant]:
    """Join the token's room for the block.

    Raises:
        Failed: LiveKit refuses the token, or cannot be reached.
    """
    room = rtc.Room()
    try:
        try:
            async with asyncio.timeout(CONNECT_S):
                await room.connect(server_url, token, rtc.RoomOptions(auto_subscribe=False))
        except TimeoutError:
            raise Failed(f"{server_url}: no connection within {CONNECT_S:.0f} s") from None
        except rtc.ConnectError as error:
            raise Failed(f"{server_url}: {error.message}") from None
        yield Participant(room)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await room.disconnect()
