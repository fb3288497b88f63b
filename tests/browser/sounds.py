"""What does Chromium's microphone hear in these tests? A whistle, so that its echo is known."""

import math
import struct
import wave
from pathlib import Path

RATE_HZ = 48_000


def write_whistle(path: Path, *, tone_hz: int) -> Path:
    """A sound file: the tone for 0.3 s of each 0.6 s.

    Noise suppression would take an even tone away, as it does a fan's.
    """
    one = range(int(0.3 * RATE_HZ))
    loud = [int(20_000 * math.sin(2 * math.pi * tone_hz * n / RATE_HZ)) for n in one]
    samples = (loud + [0] * len(one)) * 5
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE_HZ)
        file.writeframes(struct.pack(f"<{len(samples)}h", *samples))
    return path
