"""What does a person do? Asks for a session, joins the room, stays with the agent, leaves."""

from __future__ import annotations

import asyncio
import itertools
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from livekit import rtc

from devstack.testing import RunningStack

from .journal import Journal
from .plan import Visit
from .watching import Watch

ENDPOINT = "/api/v1/dispatches"
# `useAgent` gives up after 20 s; a little longer, so that the deadline is seen to pass.
PATIENCE_S = 24.0
_RETRY_AFTER_S = 0.3
_ANSWER_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.1
# Longer than the 21 s for which LiveKit lists a dead agent, and than its 20 s for an empty room.
_WATCH_ON_S = 30.0


@dataclass(frozen=True, kw_only=True)
class _Session:
    server_url: str
    token: str


class Street:
    """Where the people come from: what they share."""

    def __init__(self, stack: RunningStack, journal: Journal, watch: Watch) -> None:
        self._stack = stack
        self._journal = journal
        self._watch = watch
        self._numbers = itertools.count()
        self._http: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Street:
        self._http = aiohttp.ClientSession(
            base_url=self._stack.web_url,
            headers={"Authorization": f"Bearer {self._stack.api_key}"},
            timeout=aiohttp.ClientTimeout(total=_ANSWER_WITHIN_S),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._http is not None
        await self._http.close()

    async def visit(self, visit: Visit) -> None:
        """One person's session from the request until its room is left and quiet."""
        self._watch.begin(visit.room)
        session = await self._ask_until_accepted(visit.room)
        if session is not None and visit.comes:
            await asyncio.sleep(visit.walks_in_after_s)
            await self._stay(visit, session)
        await self._watch_on(visit.room)

    async def record(self, dispatch_id: str) -> tuple[int, Any]:
        """HTTP status and body of the product's own record; 0: no answer."""
        assert self._http is not None
        try:
            async with self._http.get(f"{ENDPOINT}/{dispatch_id}") as response:
                return response.status, await response.json(content_type=None)
        except (TimeoutError, aiohttp.ClientError, ValueError):
            return 0, None

    async def _ask_until_accepted(self, room: str) -> _Session | None:
        """As a client does: with the same room name again until there is a 2xx."""
        give_up_at = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_at:
            if session := await self._ask(room):
                return session
            await asyncio.sleep(_RETRY_AFTER_S)
        self._journal.write("gave_up_asking", room=room)
        return None

    async def _ask(self, room: str) -> _Session | None:
        assert self._http is not None
        number = next(self._numbers)
        body = {"room_name": room, "participant_identity": f"person-of-{room}"}
        self._journal.write("asks", room=room, ask=number)
        began = time.perf_counter()
        answer: dict[str, Any] = {}
        status, error = 0, ""
        try:
            async with self._http.post(ENDPOINT, json=body) as response:
                answer = await response.json(content_type=None)
                status = response.status
        except (TimeoutError, aiohttp.ClientError, ValueError) as failed:
            error = type(failed).__name__
        self._journal.write(
            "answered",
            room=room,
            ask=number,
            status=status,
            took_s=round(time.perf_counter() - began, 4),
            dispatch_id=answer.get("dispatch_id", ""),
            said=answer.get("status", ""),
            error=error,
        )
        if status != 200:
            return None
        return _Session(server_url=answer["server_url"], token=answer["participant_token"])

    async def _stay(self, visit: Visit, session: _Session | None) -> None:
        """In the room, and back into it where LiveKit was lost, until it is time to leave."""
        clock = _StayClock(visit)
        while session is not None and not clock.over:
            gone, leaving = asyncio.Event(), asyncio.Event()
            room = self._room(visit.room, gone, leaving)
            try:
                # Never cancelled: the SDK ends its process when nobody takes a connection it made.
                # It gives up by itself.
                options = rtc.RoomOptions(auto_subscribe=False, connect_timeout=3)
                await room.connect(session.server_url, session.token, options)
                self._journal.write("present", room=visit.room)
                while not gone.is_set() and not clock.over:
                    clock.look(self._watch.living_agents(visit.room))
                    await asyncio.sleep(_LOOK_EVERY_S)
            except rtc.ConnectError as failed:
                self._journal.write("cannot_join", room=visit.room, error=str(failed))
                clock.look([])
                await asyncio.sleep(_RETRY_AFTER_S)
            finally:
                leaving.set()
                self._journal.write("absent", room=visit.room, why="leaves")
                with suppress(Exception):  # whatever has become of the connection: it is over
                    await asyncio.wait_for(room.disconnect(), timeout=5)
            if not clock.over:
                session = await self._ask_until_accepted(visit.room)

    def _room(self, name: str, gone: asyncio.Event, leaving: asyncio.Event) -> rtc.Room:
        room = rtc.Room()

        def on_back() -> None:
            if not leaving.is_set():
                self._journal.write("present", room=name)

        def on_gone(reason: int) -> None:
            self._journal.write("absent", room=name, why=f"disconnected {reason}")
            gone.set()

        room.on("disconnected", on_gone)
        room.on("reconnecting", lambda: self._journal.write("absent", room=name, why="lost"))
        room.on("reconnected", on_back)
        return room

    async def _watch_on(self, room: str) -> None:
        """Until LiveKit lists no agent any more."""
        give_up_at = time.monotonic() + _WATCH_ON_S
        quiet = 0
        while time.monotonic() < give_up_at and quiet < 3:
            await asyncio.sleep(0.5)
            quiet = quiet + 1 if self._watch.listed(room) == {} else 0
        self._watch.end(room)


class _StayClock:
    """When does this person leave? After its time with an agent, or out of patience without."""

    def __init__(self, visit: Visit) -> None:
        self._visit = visit
        self._with_agent_s = 0.0
        self._without_since = time.monotonic()
        self._came_at = self._looked_at = time.monotonic()
        self._has_agent = False

    @property
    def over(self) -> bool:
        now = time.monotonic()
        if not self._visit.patient and now - self._came_at > self._visit.stay_s:
            return True
        if not self._has_agent:
            return now - self._without_since > PATIENCE_S
        return self._with_agent_s > self._visit.stay_s

    def look(self, agents: list[str]) -> None:
        now = time.monotonic()
        if agents:
            self._with_agent_s += (now - self._looked_at) if self._has_agent else 0.0
            self._without_since = now
        self._has_agent = bool(agents)
        self._looked_at = now
