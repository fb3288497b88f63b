"""Cancel a room's connecting without ending the process.

`rtc.Room.connect` that is cancelled leaves its native connection behind. livekit-ffi ends the whole
process, with every agent in it, when nothing has taken a connection up for 15 s ("timed out waiting
for ReadyForRoomEventRequest after ConnectCallback", exit status 1), and until then LiveKit lists a
participant that does nothing. livekit-agents cancels an entry point that has not returned 15 s
after its job's shutdown (`livekit/agents/ipc/job_proc_lazy_main.py`, `_shutdown_job`).

Source: livekit-rtc 1.1.21, `livekit/rtc/room.py`, `Room.connect`; livekit-ffi, `server/room.rs`.
Nothing private is used, so no version is guarded against. Remove when a cancelled `Room.connect`
closes its connection.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

from livekit import rtc


async def closing_when_cancelled(room: rtc.Room, connect: Coroutine[Any, Any, None]) -> None:
    """Await `connect`, which connects `room`; when cancelled, let it end first, and disconnect.

    That takes as long as livekit-rtc's own time-outs for a connection, a few seconds each.
    """
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
