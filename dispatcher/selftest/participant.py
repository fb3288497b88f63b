"""A participant in a room, who sees the agents there."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Final

from livekit import rtc

from dispatcher.errors import UsherError

CONNECT_S: Final = 10.0
_LOOK_S: Final = 0.05


class CannotJoin(UsherError):
    """The room could not be joined; the message says why."""


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

    async def wait(self, met: Callable[[list[str]], bool], *, within_s: float) -> float | None:
        """Wait until `met` holds for the agents; return how long it took (s), None if too long."""
        began = time.monotonic()
        while not met(self.agents()):
            if time.monotonic() - began > within_s:
                return None
            await asyncio.sleep(_LOOK_S)
        return time.monotonic() - began

    async def stay(self, met: Callable[[list[str]], bool], *, for_s: float) -> bool:
        """Return whether `met` held for the agents during all of `for_s`."""
        return await self.wait(lambda agents: not met(agents), within_s=for_s) is None


@contextlib.asynccontextmanager
async def in_room(server_url: str, token: str) -> AsyncIterator[Participant]:
    """Join the token's room for the block.

    Raises:
        CannotJoin: LiveKit refuses the token, or cannot be reached.
    """
    room = rtc.Room()
    try:
        try:
            async with asyncio.timeout(CONNECT_S):
                await room.connect(server_url, token, rtc.RoomOptions(auto_subscribe=False))
        except TimeoutError:
            raise CannotJoin(f"{server_url}: no connection within {CONNECT_S:.0f} s") from None
        except rtc.ConnectError as error:
            raise CannotJoin(f"{server_url}: {error.message}") from None
        yield Participant(room)
    finally:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CONNECT_S):
                await room.disconnect()
