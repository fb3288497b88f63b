"""A LiveKit room of a test's own, with the participants that the test sends in."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import aiohttp
from livekit import api, rtc
from livekit.protocol.models import ParticipantInfo

from dispatcher.domain.models import Dispatch
from dispatcher.lifecycle.services import Services
from tests.support.values import WAIT_S

if TYPE_CHECKING:
    from tests.conftest import LiveKitServer

# The types of the fixtures `services_for` and `request_dispatch`.
OpenServices = Callable[..., Awaitable[Services]]
Request = Callable[..., Dispatch]


# A join meets the deletion of a room about once in three tries, if the room has people to close.
_TRIES_TO_LOSE = 60
_PEOPLE_TO_CLOSE = 6


@dataclass
class House:
    """A LiveKit server and one room with a fresh name, with the participants of the test."""

    server: LiveKitServer
    lk: api.LiveKitAPI
    room: str
    _inside: list[rtc.Room] = field(default_factory=list)

    async def join(
        self,
        identity: str,
        *,
        agent: bool = True,
        attributes: dict[str, str] | None = None,
    ) -> rtc.Room:
        """Join a real participant, by token; an agent by its kind."""
        token = (
            api.AccessToken(self.server.api_key, self.server.api_secret)
            .with_identity(identity)
            .with_grants(api.VideoGrants(room_join=True, room=self.room, agent=agent))
            .with_attributes(attributes or {})
        )
        room = rtc.Room()
        await room.connect(
            self.server.url, token.with_kind("agent" if agent else "standard").to_jwt()
        )
        self._inside.append(room)
        # The participant may know that it has joined before LiveKit lists it.
        whom = api.RoomParticipantIdentity(room=self.room, identity=identity)
        async with asyncio.timeout(WAIT_S):
            while (await self.lk.room.get_participant(whom)).state != ParticipantInfo.ACTIVE:
                await asyncio.sleep(0.01)
        return room

    async def join_for(self, dispatch: Dispatch) -> str:
        """Join the agent that the dispatch's present generation wants; return its identity."""
        identity = f"agent-{uuid.uuid4().hex[:8]}"
        attributes = {
            "usher.dispatch_id": dispatch.dispatch_id,
            "usher.generation": str(dispatch.generation),
            "lk.agent_name": dispatch.agent_name,
        }
        await self.join(identity, attributes=attributes)
        return identity

    @contextlib.asynccontextmanager
    async def joining_for(self, dispatch: Dispatch) -> AsyncIterator[None]:
        """Within the block, keep that agent in the room by signalling alone: it is never ACTIVE."""
        token = (
            api.AccessToken(self.server.api_key, self.server.api_secret)
            .with_identity(f"agent-{uuid.uuid4().hex[:8]}")
            .with_grants(api.VideoGrants(room_join=True, room=self.room, agent=True))
            .with_attributes(
                {
                    "usher.dispatch_id": dispatch.dispatch_id,
                    "usher.generation": str(dispatch.generation),
                }
            )
            .with_kind("agent")
        )
        async with aiohttp.ClientSession() as http, self._signalling(http, token):
            yield

    @contextlib.asynccontextmanager
    async def lost(self) -> AsyncIterator[None]:
        """Within the block, a person is in the room, and LiveKit has lost it: it was deleted while
        they joined (livekit/livekit#4726). That takes some tries, each with a room of its own."""
        async with aiohttp.ClientSession() as http, contextlib.AsyncExitStack() as there:

            async def enter(identity: str) -> None:
                token = (
                    api.AccessToken(self.server.api_key, self.server.api_secret)
                    .with_identity(identity)
                    .with_grants(api.VideoGrants(room_join=True, room=self.room))
                )
                await there.enter_async_context(self._signalling(http, token))

            for number in range(_TRIES_TO_LOSE):
                self.room = f"room-{uuid.uuid4().hex}"
                for one in range(_PEOPLE_TO_CLOSE):
                    await enter(f"person-{one}")
                room = api.DeleteRoomRequest(room=self.room)
                deleting = asyncio.create_task(self.lk.room.delete_room(room))
                await asyncio.sleep(0.001 * (number % 8))
                await enter("late")
                await deleting
                if await self._is_lost():
                    yield
                    return
        raise AssertionError(f"LiveKit has lost no room in {_TRIES_TO_LOSE} tries")

    @contextlib.asynccontextmanager
    async def _signalling(
        self, http: aiohttp.ClientSession, token: api.AccessToken
    ) -> AsyncIterator[None]:
        """Within the block, that participant is in the room by signalling alone."""
        query = {"access_token": token.to_jwt(), "protocol": "15", "sdk": "python"}
        async with http.ws_connect(f"{self.server.url}/rtc", params=query) as socket:
            await socket.receive()  # the answer to the join
            yield

    async def _is_lost(self) -> bool:
        try:
            async with asyncio.timeout(0.5):
                await self.lk.agent_dispatch.list_dispatch(self.room)
        except api.TwirpError as error:
            return error.status == 404
        except TimeoutError:  # there is no such room
            pass
        return False

    async def dispatches(self) -> list[api.AgentDispatch]:
        """Return LiveKit's dispatches of the room, but its own one for agents without a name."""
        rooms = await self.lk.room.list_rooms(api.ListRoomsRequest(names=[self.room]))
        if not rooms.rooms:
            return []
        listed = await self.lk.agent_dispatch.list_dispatch(self.room)
        return [item for item in listed if item.agent_name and not item.state.deleted_at]

    async def generations(self) -> list[tuple[str, str]]:
        """Return dispatch id and generation of every LiveKit dispatch of the room."""
        return sorted(
            (item.attributes["usher.dispatch_id"], item.attributes["usher.generation"])
            for item in await self.dispatches()
        )

    async def everybody_leaves(self) -> None:
        """Have every participant leave; return when LiveKit lists none any longer."""
        for room in self._inside:
            await room.disconnect()
        self._inside.clear()
        async with asyncio.timeout(WAIT_S):
            request = api.ListParticipantsRequest(room=self.room)
            while (await self.lk.room.list_participants(request)).participants:
                await asyncio.sleep(0.02)

    async def empty(self) -> None:
        """Have every participant leave, and delete the room."""
        for room in self._inside:
            await room.disconnect()
        with contextlib.suppress(api.TwirpError):
            await self.lk.room.delete_room(api.DeleteRoomRequest(room=self.room))
