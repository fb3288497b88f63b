"""An agent without an AI, which greets, and gives back what it hears and reads.

On the wire it does what livekit-agents' `AgentSession` does (livekit/agents/voice/room_io), so that
LiveKit's client components show it unchanged: people write on the text topic `lk.chat`; the agent
answers on `lk.transcription` with a segment id and "final"; its sound is its microphone track;
its attribute `lk.agent.state` is "listening", without which `useAgent` gives it up after 20 s.
"""

import asyncio
import logging
from collections.abc import Coroutine

from livekit import rtc
from livekit.agents import JobContext, utils
from livekit.agents.job import DEFAULT_PARTICIPANT_KINDS
from livekit.agents.types import (
    ATTRIBUTE_AGENT_STATE,
    ATTRIBUTE_TRANSCRIPTION_FINAL,
    ATTRIBUTE_TRANSCRIPTION_SEGMENT_ID,
    TOPIC_CHAT,
    TOPIC_TRANSCRIPTION,
)

from worker_agent.echo.audio import Voice, chime

GREETING = "Hello! I am an echo: say or write something, and I give it back."

_log = logging.getLogger(__name__)


async def entrypoint(ctx: JobContext) -> None:
    """Join the room, and return when listening, as `AgentSession.start` does.

    At a shutdown livekit-agents waits up to 15 s for an entrypoint that still runs. The job ends
    when the room disconnects: LiveKit closes it 20 s after the last person has left, by default.
    """
    session = _EchoSession(ctx.room)
    ctx.add_shutdown_callback(session.aclose)
    session.listen()
    await ctx.connect()
    session.catch_up()


class _EchoSession:
    """One agent in one room. All of it runs on the job's event loop."""

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._voice = Voice(room)
        self._greeted_sids: set[str] = set()
        # By the sid of the track: the sid of its participant, and the task that echoes it.
        self._echoes: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self) -> None:
        """Register for the room's events; before it is joined, so that none is missed."""
        room = self._room
        room.on("participant_connected", self._greet_if_ready)
        room.on("participant_active", self._greet_if_ready)
        room.on("participant_disconnected", self._on_left)
        room.on("track_subscribed", self._on_track)
        room.on("track_unsubscribed", self._on_track_gone)
        room.register_text_stream_handler(TOPIC_CHAT, self._on_text)

    def catch_up(self) -> None:
        """Take in what was there before the agent: LiveKit reports no event for it."""
        self._spawn(
            self._room.local_participant.set_attributes({ATTRIBUTE_AGENT_STATE: "listening"})
        )
        for participant in self._room.remote_participants.values():
            self._greet_if_ready(participant)
            for publication in participant.track_publications.values():
                if publication.track is not None and publication.sid not in self._echoes:
                    self._on_track(publication.track, publication, participant)

    async def aclose(self) -> None:
        """End every task of the session. By now the room is left."""
        await utils.aio.cancel_and_wait(*self._tasks)
        await self._voice.aclose()

    def _greet_if_ready(self, participant: rtc.RemoteParticipant) -> None:
        # ACTIVE: its data channels are open. One who comes back has a new sid, and is greeted again
        ready = participant.state == rtc.ParticipantState.PARTICIPANT_STATE_ACTIVE
        if ready and _is_person(participant) and participant.sid not in self._greeted_sids:
            self._greeted_sids.add(participant.sid)
            self._spawn(self._greet(participant.identity))

    async def _greet(self, identity: str) -> None:
        await self._say(GREETING, to=identity)
        await self._voice.play(chime())

    def _on_text(self, reader: rtc.TextStreamReader, identity: str) -> None:
        sender = self._room.remote_participants.get(identity)
        if sender is None or not _is_person(sender):
            reader.close()  # of a second agent, during a recovery: agents do not talk to each other
            return
        self._spawn(self._answer(reader, identity))

    async def _answer(self, reader: rtc.TextStreamReader, identity: str) -> None:
        await self._say(await reader.read_all(), to=identity)

    async def _say(self, text: str, *, to: str) -> None:
        # only to the one it answers: the message may have been for the agent alone
        await self._room.local_participant.send_text(
            text,
            topic=TOPIC_TRANSCRIPTION,
            destination_identities=[to],
            attributes={
                ATTRIBUTE_TRANSCRIPTION_SEGMENT_ID: utils.shortuuid("SG_"),
                ATTRIBUTE_TRANSCRIPTION_FINAL: "true",
            },
        )

    def _on_track(
        self,
        track: rtc.Track,
        publication: rtc.RemoteTrackPublication,
        participant: rtc.RemoteParticipant,
    ) -> None:
        from_microphone = publication.source == rtc.TrackSource.SOURCE_MICROPHONE
        if not (
            isinstance(track, rtc.RemoteAudioTrack) and from_microphone and _is_person(participant)
        ):
            return
        self._stop_echo(publication.sid)
        task = self._spawn(self._voice.echo(track))
        self._echoes[publication.sid] = participant.sid, task

    def _on_track_gone(
        self, _: rtc.Track | None, publication: rtc.RemoteTrackPublication, __: object
    ) -> None:
        self._stop_echo(publication.sid)

    def _on_left(self, participant: rtc.RemoteParticipant) -> None:
        # livekit's Room drops "track_unsubscribed" when the participant is already gone
        for track_sid, (owner_sid, _) in list(self._echoes.items()):
            if owner_sid == participant.sid:
                self._stop_echo(track_sid)

    def _stop_echo(self, track_sid: str) -> None:
        if echo := self._echoes.pop(track_sid, None):
            echo[1].cancel()

    def _spawn(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # A failure with one person does not end the session; a closing room breaks what runs.
            level = logging.WARNING if self._room.isconnected() else logging.DEBUG
            _log.log(level, "echo session: %s", error, exc_info=error)


def _is_person(participant: rtc.RemoteParticipant) -> bool:
    """True for the kinds that livekit-agents serves: no agent, recorder or ingress."""
    return participant.kind in DEFAULT_PARTICIPANT_KINDS
