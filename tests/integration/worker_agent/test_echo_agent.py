"""Does the echo agent greet, and give back what real participants say and write?"""

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pytest
import pytest_asyncio
from livekit import api, rtc
from livekit.agents import AgentServer, JobContext, JobExecutorType
from livekit.agents.types import ATTRIBUTE_AGENT_STATE
from livekit.rtc._proto.ffi_pb2 import FfiEvent

from worker_agent.echo import GREETING, entrypoint
from worker_agent.echo.audio import CHIME_NOTES_HZ
from worker_agent.livekit_workarounds.ffi_events import narrow
from worker_agent.livekit_workarounds.room_options import spare

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAMPLE_RATE_HZ = 48_000
TONE_HZ = 440
OTHER_TONE_HZ = 1500
WINDOW_S = 0.4
WAIT_S = 40

Samples = npt.NDArray[np.int16]


class LiveKitServer(Protocol):
    url: str
    api_key: str
    api_secret: str


def share_at(samples: Samples, tone_hz: float) -> float:
    """How much of the sound's energy lies within 20 Hz of a frequency: 0 (or silence) to 1."""
    energy = np.abs(np.fft.rfft(samples * np.hanning(samples.size))) ** 2
    at_hz = np.fft.rfftfreq(samples.size, 1 / SAMPLE_RATE_HZ)
    audible = np.abs(samples).max() > 300
    return float(energy[np.abs(at_hz - tone_hz) < 20].sum() / energy.sum()) if audible else 0.0


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was logged as wrong: a task left behind, an entrypoint cancelled, our own warnings.

    Not the logger "livekit": there the native library complains of every room that is closed on it.
    Nor that a loop was held up: on a busy machine it is, by whatever else runs there.
    """
    ours = ("asyncio", "livekit.agents", "worker_agent")
    return [
        record.getMessage()
        for record in caplog.records
        if record.levelno >= logging.WARNING
        and record.name.startswith(ours)
        and not record.getMessage().startswith("event loop blocked")
    ]


class Person:
    """A participant with ears, a notebook for what it reads, and a whistle."""

    def __init__(self) -> None:
        self.room = rtc.Room()
        self.texts: asyncio.Queue[str] = asyncio.Queue()
        self._agent_track: asyncio.Future[rtc.Track] = asyncio.get_running_loop().create_future()
        self._whistling: asyncio.Task[None] | None = None
        self._reading: set[asyncio.Task[None]] = set()
        self.room.register_text_stream_handler("lk.transcription", self._on_text)
        self.room.on("track_subscribed", self._on_track)

    def _on_track(self, track: rtc.Track, _: object, participant: rtc.RemoteParticipant) -> None:
        is_agent = participant.kind == rtc.ParticipantKind.PARTICIPANT_KIND_AGENT
        if is_agent and not self._agent_track.done():
            self._agent_track.set_result(track)

    def _on_text(self, reader: rtc.TextStreamReader, _: str) -> None:
        async def read() -> None:
            self.texts.put_nowait(await reader.read_all())

        task = asyncio.create_task(read())
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)

    async def read(self) -> str:
        return await asyncio.wait_for(self.texts.get(), WAIT_S)

    async def write(self, text: str) -> None:
        await self.room.local_participant.send_text(text, topic="lk.chat")

    async def whistle(self, tone_hz: float) -> rtc.LocalTrackPublication:
        source = rtc.AudioSource(SAMPLE_RATE_HZ, 1)

        async def keep_whistling() -> None:
            seconds = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
            second = (np.sin(2 * np.pi * tone_hz * seconds) * 8000).astype(np.int16)
            while True:  # whole seconds of a whole number of Hz join without a click
                for block in np.split(second, 50):
                    await source.capture_frame(
                        rtc.AudioFrame(block.tobytes(), SAMPLE_RATE_HZ, 1, block.size)
                    )

        publication = await self.room.local_participant.publish_track(
            rtc.LocalAudioTrack.create_audio_track("microphone", source),
            rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE),
        )
        self._whistling = asyncio.create_task(keep_whistling())
        return publication

    async def listen_until(self, heard: Callable[[Samples], bool]) -> None:
        """Listens to the agent until a stretch of sound of 0.4 s is as asked for."""
        track = await asyncio.wait_for(self._agent_track, WAIT_S)
        stream = rtc.AudioStream(track, sample_rate=SAMPLE_RATE_HZ, num_channels=1)
        window: Samples = np.zeros(int(SAMPLE_RATE_HZ * WINDOW_S), dtype=np.int16)
        try:
            async with asyncio.timeout(WAIT_S):
                async for event in stream:
                    samples = np.frombuffer(event.frame.data, dtype=np.int16)
                    window = np.concatenate([window[samples.size :], samples])
                    if heard(window):
                        return
        finally:
            await stream.aclose()
        pytest.fail("the agent's track ended")

    async def leave(self) -> None:
        if self._whistling is not None:
            self._whistling.cancel()
            await asyncio.gather(self._whistling, return_exceptions=True)
        await self.room.disconnect()


class Stage:
    """A LiveKit server with one echo agent server, and the rooms of one test."""

    def __init__(
        self, livekit: LiveKitServer, agent_name: str, agent_server: AgentServer, lk: api.LiveKitAPI
    ) -> None:
        self.agent_server = agent_server
        self.lk = lk
        self._livekit = livekit
        self._agent_name = agent_name

    async def room(self, *, agents: int = 1, departure_timeout_s: int = 20) -> str:
        """A new room with its agents on their way."""
        name = f"echo-{uuid.uuid4().hex}"
        await self.lk.room.create_room(
            api.CreateRoomRequest(name=name, departure_timeout=departure_timeout_s)
        )
        for _ in range(agents):
            await self.lk.agent_dispatch.create_dispatch(
                api.CreateAgentDispatchRequest(room=name, agent_name=self._agent_name)
            )
        return name

    @contextlib.asynccontextmanager
    async def person(self, room: str, identity: str = "ann") -> AsyncIterator[Person]:
        token = api.AccessToken(self._livekit.api_key, self._livekit.api_secret).with_identity(
            identity
        )
        token = token.with_grants(api.VideoGrants(room_join=True, room=room))
        person = Person()
        await person.room.connect(self._livekit.url, token.to_jwt())
        narrow(person.room)
        try:
            yield person
        finally:
            await person.leave()

    async def job_ended(self, room: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while any(job.job.room.name == room for job in self.agent_server.active_jobs):
                await asyncio.sleep(0.05)  # livekit-agents has no event for the end of a job


async def as_usher_has_it(ctx: JobContext) -> None:
    spare(ctx.room)
    await entrypoint(ctx)
    narrow(ctx.room)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def stage(livekit_server: LiveKitServer) -> AsyncIterator[Stage]:
    agent_name = f"echo-{uuid.uuid4().hex}"
    server = AgentServer(
        job_executor_type=JobExecutorType.THREAD,
        num_idle_processes=1,
        load_fnc=lambda: 0.0,
        host="127.0.0.1",
        port=0,
        ws_url=livekit_server.url,
        api_key=livekit_server.api_key,
        api_secret=livekit_server.api_secret,
    )
    server.rtc_session(as_usher_has_it, agent_name=agent_name)
    registered = asyncio.Event()
    server.on("worker_registered", lambda *_: registered.set())
    running = asyncio.create_task(server.run())
    await asyncio.wait_for(registered.wait(), WAIT_S)
    url = livekit_server.url.replace("ws", "http", 1)
    async with api.LiveKitAPI(
        url, livekit_server.api_key, livekit_server.api_secret, failover=False
    ) as lk:
        yield Stage(livekit_server, agent_name, server, lk)
    await server.aclose()
    await running


async def test_a_person_is_greeted_in_text_and_by_a_chime(stage: Stage) -> None:
    room = await stage.room()
    async with stage.person(room) as ann:
        assert await ann.read() == GREETING
        await ann.listen_until(
            lambda sound: all(share_at(sound, note_hz) > 0.2 for note_hz in CHIME_NOTES_HZ)
        )


async def test_a_person_hears_their_own_tone_and_nothing_else(stage: Stage) -> None:
    room = await stage.room()
    async with stage.person(room) as ann:
        await ann.whistle(TONE_HZ)
        await ann.listen_until(lambda sound: share_at(sound, TONE_HZ) > 0.9)


async def test_text_comes_back_to_the_one_who_wrote_it_and_to_nobody_else(stage: Stage) -> None:
    room = await stage.room()
    async with stage.person(room, "ann") as ann, stage.person(room, "bob") as bob:
        assert [await ann.read(), await bob.read()] == [GREETING, GREETING]
        await ann.write("Wie geht's? 🙂")
        assert await ann.read() == "Wie geht's? 🙂"
        await bob.write("fine")
        assert await bob.read() == "fine"  # the first that bob reads since the greeting


async def test_two_people_are_heard_together(stage: Stage) -> None:
    room = await stage.room()
    async with stage.person(room, "ann") as ann, stage.person(room, "bob") as bob:
        await ann.whistle(TONE_HZ)
        await bob.whistle(OTHER_TONE_HZ)
        for person in (ann, bob):
            await person.listen_until(
                lambda sound: min(share_at(sound, TONE_HZ), share_at(sound, OTHER_TONE_HZ)) > 0.3
            )


async def test_two_agents_in_one_room_do_not_echo_each_other(stage: Stage) -> None:
    room = await stage.room(agents=2)
    async with stage.person(room) as ann:
        assert [await ann.read(), await ann.read()] == [GREETING, GREETING]
        publication = await ann.whistle(TONE_HZ)
        await ann.listen_until(lambda sound: share_at(sound, TONE_HZ) > 0.9)
        await ann.room.local_participant.unpublish_track(publication.sid)
        await ann.listen_until(lambda sound: bool(np.abs(sound).max() < 50))


async def test_a_track_that_ends_is_no_longer_heard_and_the_next_one_is(stage: Stage) -> None:
    room = await stage.room()
    async with stage.person(room) as ann:
        first = await ann.whistle(TONE_HZ)
        await ann.listen_until(lambda sound: share_at(sound, TONE_HZ) > 0.9)
        await ann.room.local_participant.unpublish_track(first.sid)
        await ann.listen_until(lambda sound: bool(np.abs(sound).max() < 50))
        await ann.whistle(OTHER_TONE_HZ)
        await ann.listen_until(lambda sound: share_at(sound, OTHER_TONE_HZ) > 0.9)


async def test_a_person_who_comes_back_is_greeted_and_echoed_again(stage: Stage) -> None:
    room = await stage.room()
    async with stage.person(room) as ann:
        await ann.whistle(TONE_HZ)
        await ann.listen_until(lambda sound: share_at(sound, TONE_HZ) > 0.9)
    async with stage.person(room) as ann:
        assert await ann.read() == GREETING
        await ann.whistle(OTHER_TONE_HZ)
        await ann.listen_until(lambda sound: share_at(sound, OTHER_TONE_HZ) > 0.9)


async def test_the_agent_says_that_it_is_listening(stage: Stage) -> None:
    room = await stage.room()
    async with stage.person(room) as ann:
        await ann.read()
        async with asyncio.timeout(WAIT_S):
            while not any(
                person.attributes.get(ATTRIBUTE_AGENT_STATE) == "listening"
                for person in ann.room.remote_participants.values()
            ):
                await asyncio.sleep(0.05)


async def test_the_job_ends_after_the_last_person_left(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    room = await stage.room(departure_timeout_s=1)
    async with stage.person(room) as ann:
        await ann.whistle(TONE_HZ)
        await ann.listen_until(lambda sound: share_at(sound, TONE_HZ) > 0.9)
    await stage.job_ended(room)
    assert complaints(caplog) == []


async def test_the_job_ends_at_once_when_the_room_is_deleted_under_an_echo(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    room = await stage.room()
    async with stage.person(room) as ann:
        await ann.whistle(TONE_HZ)
        await ann.listen_until(lambda sound: share_at(sound, TONE_HZ) > 0.9)
        await stage.lk.room.delete_room(api.DeleteRoomRequest(room=room))
        await stage.job_ended(room)
    assert complaints(caplog) == []


async def test_a_narrowed_room_gets_its_own_events_and_those_of_no_other(stage: Stage) -> None:
    got: dict[str, set[int]] = {"ann": set(), "bob": set()}
    async with contextlib.AsyncExitStack() as stack:
        people = {
            name: await stack.enter_async_context(stage.person(await stage.room(agents=0), name))
            for name in got
        }
        for name, person in people.items():
            collect(person.room, got[name])
        for name, person in people.items():
            await person.room.local_participant.set_name(f"{name} has another name")
        handles = {name: {person.room._ffi_handle.handle} for name, person in people.items()}
        async with asyncio.timeout(WAIT_S):
            while not all(got.values()):
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)  # the other's would have come by now

    assert got == handles


def collect(room: rtc.Room, handles: set[int]) -> None:
    """Whose events come to this room, all of which it puts into its own queue."""
    put = room._ffi_queue.put_nowait

    def put_and_note(event: FfiEvent) -> None:
        if event.WhichOneof("message") == "room_event":
            handles.add(event.room_event.room_handle)
        put(event)

    room._ffi_queue.put_nowait = put_and_note
