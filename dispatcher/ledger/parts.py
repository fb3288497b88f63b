"""Names of the parts that report themselves at work, and the lifetime of such a report."""

from __future__ import annotations

from typing import Final

TTL_S: Final = 6.0
SWEEPER: Final = "sweeper"


def worker(queue: str) -> str:
    """Return the name of the workers of one queue."""
    return f"worker:{queue}"


def livekit(client_id: str) -> str:
    """Return the name of one client's LiveKit server."""
    return f"livekit:{client_id}"
