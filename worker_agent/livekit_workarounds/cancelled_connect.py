"""Cancel a room's connecting without ending the process.

For livekit-rtc 1.1 (1.1.21, room.py `Room.connect`:
https://github.com/livekit/python-sdks/blob/main/livekit-rtc/livekit/rtc/room.py). Cancelled, it
leaves its native connection behind, and livekit-ffi ends the whole process, with every agent in it,
when nothing has taken that up for 15 s ("timed out waiting for ReadyForRoomEventRequest after
ConnectCallback"). livekit-agents cancels an entry point that has not returned 15 s after its job's
shutdown (ipc/job_proc_lazy_main.py `_shutdown_job`).

Guard: public names only; with a livekit-rtc that closes its connection this waits for nothing.
Remove when a cancelled `Room.connect` closes its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from livekit import rtc


async def closing_when_cancelled(room: rtc.Room, connect: Coroutine[Any, Any, None]) -> None:
    """Await `connect`, which connects `room`; when cancelled, let it end first, and disconnect."""
    connecting = asyncio.ensure_future(connect)
    try:
        await asyncio.shield(connecting)
    except asyncio.CancelledError:
        while not connecting.done():
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await asyncio.shield(connecting)
        if not connecting.cancelled() and connecting.exception() is None:
            with contextlib.suppress(Exception):  # the connection is over, whatever it says
                await room.disconnect()
        raise
