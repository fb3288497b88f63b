"""A person in a LiveKit room who writes to the agent there, and keeps what it answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from livekit import rtc

# For a machine on which a process starts slowly.
ANSWERS_WITHIN_S = 60.0
# A text that came before the agent had a handler for it is sent again.
ASKED_AGAIN_S = 0.5
# It is there and has not registered the method yet, or has left: LiveKit (1.13.5,
# `subscriberUpdateInterval`) tells a person who publishes nothing of that up to 3 s late.
_CALLED_AGAIN = frozenset(
    {
        rtc.RpcError.ErrorCode.UNSUPPORTED_METHOD,
        rtc.RpcError.ErrorCode.RECIPIENT_NOT_FOUND,
        rtc.RpcError.ErrorCode.RECIPIENT_DISCONNECTED,
        rtc.RpcError.ErrorCode.CONNECTION_TIMEOUT,
    }
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A text, and the identity of the agent that has sent it."""

    agent_identity: str
    text: str


@dataclass
class Person:
    """One connection to a room."""

    room: rtc.Room = field(default_factory=rtc.Room)
    answers: list[Answer] = field(default_factory=list)
    _reading: set[asyncio.Task[None]] = field(default_factory=set)

    def agents(self) -> list[rtc.RemoteParticipant]:
        """The agents whom this person sees, ready for data."""
        return [
            participant
            for participant in self.room.remote_participants.values()
            if participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
            and participant.state == rtc.ParticipantState.PARTICIPANT_STATE_ACTIVE
        ]

    async def agent(self, *, within_s: float = ANSWERS_WITHIN_S) -> rtc.RemoteParticipant:
        """The first agent, as soon as one is there."""
        await until(f"an agent in {self.room.name}", lambda: bool(self.agents()), within_s=within_s)
        return self.agents()[0]

    async def say(self, text: str) -> None:
        """Write `text` into the chat."""
        await self.room.local_participant.send_text(text, topic="lk.chat")

    async def ask(self, text: str, *, of: str = "", within_s: float = ANSWERS_WITHIN_S) -> Answer:
        """What an agent answers to `text`: that of the identity `of`, or any."""
        before = len(self.answers)

        def answered() -> list[Answer]:
            return [each for each in self.answers[before:] if of in ("", each.agent_identity)]

        async with asyncio.timeout(within_s):
            while not answered():
                await self.agent(within_s=within_s)
                await self.say(text)
                with contextlib.suppress(AssertionError):
                    await until("an answer", lambda: bool(answered()), within_s=ASKED_AGAIN_S)
        return answered()[0]

    async def call(self, method: str, payload: str) -> str:
        """What the agent returns to a remote procedure call."""
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            while True:
                agent = await self.agent()
                try:
                    return await self.room.local_participant.perform_rpc(
                        destination_identity=agent.identity, method=method, payload=payload
                    )
                except rtc.RpcError as error:
                    if error.code not in _CALLED_AGAIN:
                        raise
                    await asyncio.sleep(0.1)

    def _on_text(self, reader: rtc.TextStreamReader, identity: str) -> None:
        async def read() -> None:
            self.answers.append(Answer(agent_identity=identity, text=await reader.read_all()))

        task = asyncio.create_task(read())
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)


@contextlib.asynccontextmanager
async def in_room(url: str, token: str) -> AsyncIterator[Person]:
    """A person in the room of `token` for as long as the block lasts."""
    person = Person()
    person.room.register_text_stream_handler("lk.transcription", person._on_text)
    await person.room.connect(url, token)
    try:
        yield person
    finally:
        await person.room.disconnect()


async def until(what: str, holds: Callable[[], bool], *, within_s: float) -> None:
    """Return as soon as `holds`; fail after `within_s`."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within_s
    while not holds():
        assert loop.time() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.02)
