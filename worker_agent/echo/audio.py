"""The agent's audio track: it plays the sum of the sounds put in, with a bounded delay."""

import asyncio
import contextlib
import functools
import logging
from collections.abc import AsyncIterator

import numpy as np
from livekit import rtc
from livekit.agents import utils

SAMPLE_RATE_HZ = 48_000
CHIME_NOTES_HZ = (659.25, 987.77)
CHIME_NOTE_S = 0.2

_CHIME_AMPLITUDE = 0.2
_FADE_S = 0.02
_BLOCK_MS = 20
# So much sound may wait before the mixer, where more is dropped, and as much behind it.
_BACKLOG_MS = 100
_FIRST_LISTENER_TIMEOUT_S = 3.0

_log = logging.getLogger(__name__)


@functools.cache
def chime() -> rtc.AudioFrame:
    """Make two rising notes, 0.4 s in all, each faded in and out so that it does not click."""
    samples = int(SAMPLE_RATE_HZ * CHIME_NOTE_S)
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    fade = np.minimum(1, np.minimum(time_s, time_s[::-1]) / _FADE_S)
    notes = np.concatenate(
        [np.sin(2 * np.pi * note_hz * time_s) * fade for note_hz in CHIME_NOTES_HZ]
    )
    pcm = (notes * _CHIME_AMPLITUDE * np.iinfo(np.int16).max).astype(np.int16)
    return rtc.AudioFrame(pcm.tobytes(), SAMPLE_RATE_HZ, 1, pcm.size)


class Voice:
    """The agent's audio track in a room, published when it is first needed.

    One, because clients look for one: `useVoiceAssistant` takes the agent's microphone track.
    """

    def __init__(self, room: rtc.Room) -> None:
        self._room = room
        self._opening: asyncio.Task[rtc.AudioMixer] | None = None
        self._opened = contextlib.AsyncExitStack()

    async def play(self, frame: rtc.AudioFrame) -> None:
        """Put one sound in; return before it has been heard."""
        (await self._open()).add_stream(_once(frame))

    async def echo(self, track: rtc.RemoteAudioTrack) -> None:
        """Play a remote track until that ends or this is cancelled."""
        mixer = await self._open()
        stream = rtc.AudioStream(
            track,
            sample_rate=SAMPLE_RATE_HZ,
            num_channels=1,
            frame_size_ms=_BLOCK_MS,
            capacity=_BACKLOG_MS // _BLOCK_MS,
        )
        ended = asyncio.Event()
        frames = _frames(stream, ended)
        mixer.add_stream(frames)
        try:
            await ended.wait()
        finally:
            mixer.remove_stream(frames)
            await stream.aclose()

    async def aclose(self) -> None:
        if self._opening is not None:
            await utils.aio.cancel_and_wait(self._opening)
        await self._opened.aclose()

    async def _open(self) -> rtc.AudioMixer:
        """Publish the track at the first sound; after a failure the next one tries again.

        Raises:
            rtc.participant.PublishTrackError: the room does not take the track.
        """
        if self._opening is None or (self._opening.done() and self._opening.exception()):
            self._opening = asyncio.create_task(self._publish(), name="voice: publish")
        return await asyncio.shield(self._opening)

    async def _publish(self) -> rtc.AudioMixer:
        source = rtc.AudioSource(SAMPLE_RATE_HZ, 1, queue_size_ms=_BACKLOG_MS)
        publication = await self._room.local_participant.publish_track(
            rtc.LocalAudioTrack.create_audio_track("echo", source),
            rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE),
        )
        mixer = rtc.AudioMixer(
            SAMPLE_RATE_HZ, 1, blocksize=SAMPLE_RATE_HZ * _BLOCK_MS // 1000, capacity=1
        )
        pump = asyncio.create_task(_pump(mixer, source), name="voice: pump")
        self._opened.push_async_callback(source.aclose)
        self._opened.push_async_callback(mixer.aclose)
        self._opened.push_async_callback(utils.aio.cancel_and_wait, pump)
        with contextlib.suppress(TimeoutError):  # what is sent before the first listener is lost
            await asyncio.wait_for(publication.wait_for_subscription(), _FIRST_LISTENER_TIMEOUT_S)
        return mixer


async def _frames(stream: rtc.AudioStream, ended: asyncio.Event) -> AsyncIterator[rtc.AudioFrame]:
    """Yield a track's frames for the mixer to read, and set `ended` at their end."""
    async for event in stream:
        yield event.frame
    ended.set()


async def _once(frame: rtc.AudioFrame) -> AsyncIterator[rtc.AudioFrame]:
    yield frame


@utils.log_exceptions(logger=_log)
async def _pump(mixer: rtc.AudioMixer, source: rtc.AudioSource) -> None:
    async for frame in mixer:
        await source.capture_frame(frame)
