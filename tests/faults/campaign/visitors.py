"""What a person does: asks for a session, joins the room, stays with the agent, leaves.

Some reload the page, come back later, or open a second tab (`plan.Person`).
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import aiohttp
from livekit import rtc

from tests.support.stacks import RunningStack
from worker_agent.livekit_workarounds import room_options

from .agent import Order
from .journal import Journal
from .plan import Person, Visit
from .talking import Talk
from .watching import Watch

ENDPOINT = "/api/v1/dispatches"
# `useAgent` gives up after 20 s; a little longer, so that the deadline is seen to pass.
PATIENCE_S = 24.0
_TAB_STAYS_S = 4.0
_RETRY_AFTER_S = 0.3
_ANSWER_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.1
# Longer than the 21 s for which LiveKit lists a dead agent, and than its 20 s for an empty room.
_WATCH_ON_S = 30.0


@dataclass(frozen=True, kw_only=True)
class _Session:
    server_url: str
    token: str


@dataclass(frozen=True, kw_only=True)
class _Guest:
    """One person, or one tab of a person, and why it is in that room."""

    visit: Visit
    identity: str

    @property
    def room(self) -> str:
        return self.visit.room


class Street:
    """Where the people come from: what they share."""

    def __init__(self, stack: RunningStack, journal: Journal, watch: Watch) -> None:
        self._stack = stack
        self._journal = journal
        self._watch = watch
        self._numbers = itertools.count()
        self._words = itertools.count()
        self._served: Counter[str] = Counter()
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
        self._journal.write(
            "visit",
            room=visit.room,
            agent=visit.agent,
            person=visit.person,
            starts_in_s=round(visit.starts_in_s, 2),
        )
        self._watch.begin(visit.room)
        guest = _Guest(visit=visit, identity=f"person-of-{visit.room}")
        session = await self._ask_until_accepted(guest)
        if session is not None and visit.comes:
            await asyncio.sleep(visit.walks_in_after_s)
            tab = asyncio.create_task(self._second_tab(visit))
            await self._stay(guest, session)
            if visit.person in (Person.RELOADS, Person.RETURNS):
                await self._come_back(guest)
            await tab
        await self._watch_on(visit.room)

    def rooms_with_a_session(self) -> list[str]:
        """Rooms in which an agent answers a person just now."""
        return sorted(room for room, guests in self._served.items() if guests > 0)

    async def record(self, dispatch_id: str) -> tuple[int, Any]:
        """HTTP status and body of the product's own record; 0: no answer."""
        assert self._http is not None
        try:
            async with self._http.get(f"{ENDPOINT}/{dispatch_id}") as response:
                return response.status, await response.json(content_type=None)
        except (TimeoutError, aiohttp.ClientError, ValueError):
            return 0, None

    async def _come_back(self, guest: _Guest) -> None:
        await asyncio.sleep(guest.visit.gap_s)
        session = await self._ask_until_accepted(guest)
        await self._stay(guest, session, back_after_s=guest.visit.gap_s)

    async def _second_tab(self, visit: Visit) -> None:
        if visit.person is not Person.TABS:
            return
        await asyncio.sleep(visit.tab_after_s)
        tab = _Guest(visit=visit, identity=f"second-tab-of-{visit.room}")
        session = await self._ask_until_accepted(tab)
        await self._stay(tab, session, stay_s=_TAB_STAYS_S)

    async def _ask_until_accepted(self, guest: _Guest) -> _Session | None:
        """As a client does: with the same room name again until there is a 2xx."""
        give_up_at = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up_at:
            if session := await self._ask(guest):
                return session
            await asyncio.sleep(_RETRY_AFTER_S)
        self._journal.write("gave_up_asking", room=guest.room, who=guest.identity)
        return None

    async def _ask(self, guest: _Guest) -> _Session | None:
        assert self._http is not None
        number = next(self._numbers)
        body = {
            "room_name": guest.room,
            "participant_identity": guest.identity,
            "room_config": {"agents": [{"metadata": Order.of(guest.visit).as_metadata()}]},
        }
        self._journal.write("asks", room=guest.room, who=guest.identity, ask=number)
        began = time.perf_counter()
        answer: dict[str, Any] = {}
        status, error = 0, ""
        try:
            async with self._http.post(ENDPOINT, json=body) as response:
                answer = await response.json(content_type=None) or {}
                status = response.status
        except (TimeoutError, aiohttp.ClientError, ValueError) as failed:
            error = type(failed).__name__
        self._journal.write(
            "answered",
            room=guest.room,
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

    async def _stay(
        self,
        guest: _Guest,
        session: _Session | None,
        *,
        stay_s: float | None = None,
        back_after_s: float | None = None,
    ) -> None:
        """In the room, and back into it where LiveKit was lost, until it is time to leave."""
        stays_s = guest.visit.stay_s if stay_s is None else stay_s
        clock = _StayClock(stay_s=stays_s, patient=guest.visit.patient)
        while session is not None and not clock.over:
            gone, leaving = asyncio.Event(), asyncio.Event()
            room = self._room(guest, gone, leaving)
            talk = Talk(
                room,
                self._words,
                lambda agent, word: self._journal.write(
                    "echo", room=guest.room, who=guest.identity, agent=agent, word=word
                ),
            )
            try:
                # Never cancelled: the SDK ends its process when nothing takes a connection it made.
                # It gives up by itself.
                options = rtc.RoomOptions(auto_subscribe=False, connect_timeout=3)
                await room.connect(session.server_url, session.token, options)
                self._present(guest, back_after_s)
                back_after_s = None
                talk.begin()
                await self._while_there(guest, talk, clock, gone)
            except rtc.ConnectError as failed:
                self._journal.write("cannot_join", room=guest.room, error=str(failed))
                clock.look(served=False)
                await asyncio.sleep(_RETRY_AFTER_S)
            finally:
                leaving.set()
                self._absent(guest, "leaves")
                await talk.end()
                with suppress(Exception):  # whatever has become of the connection: it is over
                    await asyncio.wait_for(room.disconnect(), timeout=5)
            if not clock.over:
                session = await self._ask_until_accepted(guest)

    async def _while_there(
        self, guest: _Guest, talk: Talk, clock: _StayClock, gone: asyncio.Event
    ) -> None:
        served = False
        try:
            while not gone.is_set() and not clock.over:
                clock.look(served=talk.served)
                self._served[guest.room] += talk.served - served
                served = talk.served
                await asyncio.sleep(_LOOK_EVERY_S)
        finally:
            self._served[guest.room] -= served

    def _present(self, guest: _Guest, back_after_s: float | None = None) -> None:
        more = {} if back_after_s is None else {"back_after_s": round(back_after_s, 2)}
        self._journal.write("present", room=guest.room, who=guest.identity, **more)

    def _absent(self, guest: _Guest, why: str) -> None:
        self._journal.write("absent", room=guest.room, who=guest.identity, why=why)

    def _room(self, guest: _Guest, gone: asyncio.Event, leaving: asyncio.Event) -> rtc.Room:
        room = rtc.Room()
        # Some sixty people are in rooms at a time, in this one process: without what spares an
        # agent server's joins they cost half of the machine, and the product is starved.
        room_options.spare(room)

        def on_back() -> None:
            if not leaving.is_set():
                self._present(guest)

        def on_gone(reason: int) -> None:
            self._absent(guest, f"disconnected {reason}")
            gone.set()

        room.on("disconnected", on_gone)
        room.on("reconnecting", lambda: self._absent(guest, "lost"))
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
    """When a person leaves: after its time with an agent that answers, or out of patience."""

    def __init__(self, *, stay_s: float, patient: bool) -> None:
        self._stay_s = stay_s
        self._patient = patient
        self._served_s = 0.0
        self._unserved_since = time.monotonic()
        self._came_at = self._looked_at = time.monotonic()
        self._served = False

    @property
    def over(self) -> bool:
        now = time.monotonic()
        if not self._patient and now - self._came_at > self._stay_s:
            return True
        if not self._served:
            return now - self._unserved_since > PATIENCE_S
        return self._served_s > self._stay_s

    def look(self, *, served: bool) -> None:
        now = time.monotonic()
        if served:
            self._served_s += (now - self._looked_at) if self._served else 0.0
            self._unserved_since = now
        self._served = served
        self._looked_at = now
