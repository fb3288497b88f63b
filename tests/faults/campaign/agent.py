"""The agent program of the campaign: it gives back every word, and ends as its visit's plan says.

`USHER_AGENT_ENTRYPOINT=tests.faults.campaign.agent:entrypoint`. The behaviour stands in the agent
metadata of the request (`Order`). People write on livekit-agents' text topic; the answer goes back
to the one who wrote, on the topic `ANSWERS`. Each agent keeps a log in a file that all share.

Like livekit-agents' `AgentSession` an agent ends its session when its last person has left on
purpose, and stays when a person was lost. One that is ending answers no more.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from livekit import rtc
from livekit.agents import (
    Agent,
    AgentSession,
    AutoSubscribe,
    CloseEvent,
    JobContext,
    RoomInputOptions,
    RoomOutputOptions,
)
from livekit.agents.job import DEFAULT_PARTICIPANT_KINDS
from livekit.agents.types import TOPIC_CHAT
from livekit.agents.voice.room_io import TextInputEvent
from livekit.agents.voice.room_io.types import DEFAULT_CLOSE_ON_DISCONNECT_REASONS

from tests.faults.campaign.journal import Journal
from tests.faults.campaign.plan import Behaviour, Visit

JOIN_LOG: Final = "USHER_CAMPAIGN_JOIN_LOG"
WORDS: Final = TOPIC_CHAT
ANSWERS: Final = "campaign.answer"
LEAVES_AFTER_S: Final = 0.5
LINGERS_S: Final = 3.0
# Attributes of a job that Usher has dispatched.
_DISPATCH_ID, _GENERATION = "usher.dispatch_id", "usher.generation"
_ONLY_THE_FIRST: Final = frozenset(
    {Behaviour.RAISES, Behaviour.RAISES_EARLY, Behaviour.RETURNS_EARLY}
)


@dataclass(frozen=True, kw_only=True)
class Order:
    """How an agent shall behave, as the agent metadata of a request says it."""

    behaviour: Behaviour = Behaviour.PLAIN
    seconds: float = 0.0

    @classmethod
    def of(cls, visit: Visit) -> Order:
        return cls(behaviour=visit.agent, seconds=round(visit.agent_s, 2))

    @classmethod
    def read(cls, metadata: str, attributes: Mapping[str, str]) -> Order:
        """The order of a job. The agents after the first of a dispatch do not fail by themselves,
        or no session of theirs could be served."""
        given = json.loads(metadata) if metadata else {}
        order = cls(
            behaviour=Behaviour(given.get("behaviour", Behaviour.PLAIN)),
            seconds=given.get("seconds", 0.0),
        )
        again = attributes.get(_GENERATION, "1") != "1"
        return cls() if again and order.behaviour in _ONLY_THE_FIRST else order

    def as_metadata(self) -> str:
        return json.dumps({"behaviour": self.behaviour, "seconds": self.seconds})


async def entrypoint(ctx: JobContext) -> None:
    """Serve the room of the job."""
    order = Order.read(ctx.job.metadata, ctx.job.attributes)
    await _Serving(ctx, order, Journal(Path(os.environ[JOIN_LOG]))).run()


class _Serving:
    """One job."""

    def __init__(self, ctx: JobContext, order: Order, log: Journal) -> None:
        self._ctx = ctx
        self._room = ctx.room
        self._order = order
        self._log = log
        self._answers = True
        self._met = asyncio.Event()
        self._left_alone = asyncio.Event()
        self._over = asyncio.Event()  # the job is told to end, or has lost its room
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        ctx, order = self._ctx, self._order
        self._listen()
        # Before it connects: one that is killed right after joining has left its process behind.
        self._say(
            "agent_starts",
            agent=ctx.local_participant_identity,
            behaviour=order.behaviour,
            foreign=_DISPATCH_ID not in ctx.job.attributes,
        )
        if order.behaviour is Behaviour.RAISES_EARLY:
            raise self._crash()
        if order.behaviour is Behaviour.RETURNS_EARLY:
            self._say("agent_returns")
            return
        if order.behaviour is Behaviour.SLOW:
            await asyncio.sleep(order.seconds)
        await ctx.connect(auto_subscribe=AutoSubscribe.SUBSCRIBE_NONE)
        self._say("agent_joined")
        if order.behaviour is Behaviour.SESSION:
            await self._run_agent_session()
            return
        if any(map(_is_person, self._room.remote_participants.values())):
            self._met.set()
        if order.behaviour is Behaviour.RAISES:
            await self._raise_under_a_person()
        elif order.behaviour is Behaviour.LINGERS:
            await self._linger()

    def _listen(self) -> None:
        room, say = self._room, self._say
        room.on("participant_connected", self._on_came)
        room.on("participant_disconnected", self._on_left)
        room.on("reconnecting", lambda: say("agent_reconnecting"))
        room.on("reconnected", lambda: say("agent_reconnected"))
        room.on("disconnected", self._on_disconnected)
        if self._order.behaviour is not Behaviour.SESSION:
            room.register_text_stream_handler(WORDS, self._on_word)
        self._ctx.add_shutdown_callback(self._on_shutdown)
        self._notice_shutdowns()

    def _notice_shutdowns(self) -> None:
        """livekit-agents waits up to 15 s for an entry point: one that waits has to know."""
        shutdown = self._ctx.shutdown

        def noticing(reason: str = "user requested") -> None:
            self._over.set()
            shutdown(reason)

        self._ctx.shutdown = noticing  # type: ignore[method-assign]  # of this job alone

    def _say(self, event: str, **more: object) -> None:
        job = self._ctx.job
        self._log.write(event, room=job.room.name, job=job.id, pid=os.getpid(), **more)

    def _crash(self) -> RuntimeError:
        self._answers = False
        self._say("agent_raises")
        return RuntimeError("this agent fails as the campaign wants it")

    def _on_came(self, person: rtc.RemoteParticipant) -> None:
        if _is_person(person):
            self._met.set()

    def _on_left(self, person: rtc.RemoteParticipant) -> None:
        if person.disconnect_reason not in DEFAULT_CLOSE_ON_DISCONNECT_REASONS:
            return
        if self._order.behaviour is Behaviour.SESSION:
            return  # the AgentSession sees to it
        if self._order.behaviour is Behaviour.LINGERS:
            if not self._people(but=person.identity):
                self._answers = False
                self._left_alone.set()
        elif self._order.behaviour is Behaviour.DELETES:
            if not self._people(but=person.identity):
                self._answers = False
                self._spawn(self._delete_room())
        else:
            self._spawn(self._leave())

    def _people(self, *, but: str = "") -> list[rtc.RemoteParticipant]:
        everybody = self._room.remote_participants.values()
        return [one for one in everybody if _is_person(one) and one.identity != but]

    async def _leave(self) -> None:
        await asyncio.sleep(LEAVES_AFTER_S)
        if not self._people():
            self._answers = False
            self._ctx.shutdown(reason="the last person has left")

    async def _delete_room(self) -> None:
        self._say("agent_deletes_room")
        try:
            await self._ctx.delete_room()
        finally:
            self._ctx.shutdown(reason="the room is deleted")

    async def _linger(self) -> None:
        await self._first_of(self._left_alone, self._over)
        if self._left_alone.is_set():
            self._say("agent_lingers")
            self._ctx.shutdown(reason="its person has left")
            await asyncio.sleep(LINGERS_S)

    async def _raise_under_a_person(self) -> None:
        await self._first_of(self._met, self._over)
        await asyncio.sleep(self._order.seconds)
        if self._answers and not self._over.is_set():
            raise self._crash()

    async def _first_of(self, *events: asyncio.Event) -> None:
        waiting = [asyncio.create_task(event.wait()) for event in events]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()

    async def _run_agent_session(self) -> None:
        """livekit-agents' own session, without models: it answers what is written to it."""
        session: AgentSession[None] = AgentSession()

        async def heard(_: AgentSession[None], event: TextInputEvent) -> None:
            if event.participant is not None:
                await self._answer(event.text, event.participant.identity)

        def closed(event: CloseEvent) -> None:
            self._say("agent_closed", why=str(event.reason))

        session.on("close", closed)
        await session.start(
            agent=Agent(instructions="Give back every word."),
            room=self._room,
            room_input_options=RoomInputOptions(text_input_cb=heard, audio_enabled=False),
            room_output_options=RoomOutputOptions(audio_enabled=False),
        )

    def _on_word(self, reader: rtc.TextStreamReader, identity: str) -> None:
        self._met.set()
        self._spawn(self._give_back(reader, identity))

    async def _give_back(self, reader: rtc.TextStreamReader, identity: str) -> None:
        with suppress(rtc.StreamError):  # the connection was lost in the middle of it
            await self._answer(await reader.read_all(), identity)

    async def _answer(self, word: str, identity: str) -> None:
        if self._answers and self._room.isconnected():
            participant = self._room.local_participant
            with suppress(rtc.StreamError):  # the connection is lost, or the person gone
                await participant.send_text(word, topic=ANSWERS, destination_identities=[identity])

    def _on_disconnected(self, reason: rtc.DisconnectReason.ValueType) -> None:
        self._over.set()
        self._say("agent_disconnected", why=int(reason))

    async def _on_shutdown(self, reason: str) -> None:
        self._say("agent_left", why=reason)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._say("agent_cannot", error=repr(error))


def _is_person(participant: rtc.RemoteParticipant) -> bool:
    """Of the kinds that livekit-agents serves."""
    return participant.kind in DEFAULT_PARTICIPANT_KINDS
