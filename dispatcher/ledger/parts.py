"""The names of the parts that report themselves at work, and how long a report holds."""

from __future__ import annotations

from typing import Final

TTL_S: Final = 6.0
SWEEPER: Final = "sweeper"


def worker(queue: str) -> str:
    """Name of the workers of one queue."""
    return f"worker:{queue}"


def livekit(client_id: str) -> str:
    """Name of one client's LiveKit server."""
    return f"livekit:{client_id}"
