"""An agent that publishes its track at once, and plays a tone as soon as a person listens."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

import numpy as np
from livekit import rtc
from livekit.agents import JobContext

_RATE_HZ: Final = 48_000
_TONE_HZ: Final = 440
_FRAME_S: Final = 0.02
# A person hears only the end of a tone that begins before the media connection is there.
_TONE_S: Final = 5.0
_LISTENER_WITHIN_S: Final = 20.0


async def entrypoint(ctx: JobContext) -> None:
    """Join the room and greet."""
    await ctx.connect()
    source = rtc.AudioSource(_RATE_HZ, 1, queue_size_ms=100)
    publication = await ctx.room.local_participant.publish_track(
        rtc.LocalAudioTrack.create_audio_track("greeting", source),
        rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE),
    )
    greeting = asyncio.create_task(_greet(publication, source), name="greeting")

    async def end() -> None:
        greeting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await greeting
        await source.aclose()

    ctx.add_shutdown_callback(end)


async def _greet(publication: rtc.LocalTrackPublication, source: rtc.AudioSource) -> None:
    async with asyncio.timeout(_LISTENER_WITHIN_S):
        await publication.wait_for_subscription()
    samples = int(_RATE_HZ * _FRAME_S)
    for number in range(int(_TONE_S / _FRAME_S)):
        at_s = (number * samples + np.arange(samples)) / _RATE_HZ
        pcm = (np.sin(2 * np.pi * _TONE_HZ * at_s) * 0.3 * np.iinfo(np.int16).max).astype(np.int16)
        await source.capture_frame(rtc.AudioFrame(pcm.tobytes(), _RATE_HZ, 1, samples))
