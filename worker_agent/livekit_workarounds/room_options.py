"""Connect an agent to its room with less work for its process.

For livekit-rtc 1.1 (1.1.21, room.py `Room.connect` and `RoomOptions`:
https://github.com/livekit/python-sdks/blob/main/livekit-rtc/livekit/rtc/room.py). In libwebrtc
each ICE agent that begins to look for addresses has every other one of the process that looks go
through the machine's networks again: with n of them that is n times n, on one thread. livekit-rtc
has seven for a room, which look for as long as the room lasts. What is chosen here instead are
options of `rtc.RoomOptions` (docs/decisions/0044-agents-connect-with-less.md). A program calls
`ctx.connect()`, which takes no options of the room, so the room's own `connect` is replaced.

Guard: public names only; an option that this livekit-rtc does not have is left alone.
Remove when livekit-rtc looks for addresses once and for all rooms of a process together.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from livekit import rtc

from worker_agent.livekit_workarounds import lsb_release
from worker_agent.livekit_workarounds.cancelled_connect import closing_when_cancelled


class Connecting:
    """Counts the rooms of this process that are connecting; hides `lsb_release` meanwhile."""

    def __init__(self) -> None:
        self._count = 0
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[bool]:
        """A block in which one more is connecting; its value is true when no other one was."""
        with self._lock:
            self._count += 1
            if alone := self._count == 1:
                lsb_release.hide()
        try:
            yield alone
        finally:
            with self._lock:
                self._count -= 1
                if not self._count:
                    lsb_release.show()


connecting = Connecting()


def spare(room: rtc.Room) -> None:
    """Have `room`, not yet connected, connect with our choice where its program has made none."""
    connect = room.connect

    async def connect_sparingly(
        url: str, token: str, options: rtc.RoomOptions | None = None
    ) -> None:
        with connecting.one() as alone:
            chosen = sparing(options or rtc.RoomOptions(), alone=alone)
            await closing_when_cancelled(room, connect(url, token, options=chosen))

    room.connect = connect_sparingly  # type: ignore[method-assign]  # of this room alone


def sparing(options: rtc.RoomOptions, *, alone: bool) -> rtc.RoomOptions:
    """Return `options` with the following where they say nothing.

    Addresses are looked for once: a server's do not change, and a reconnect looks anew. Among
    others that connect, two connections, as LiveKit's clients always had: two sections instead of
    seven. Alone it would be later by its second handshake.
    """
    if options.rtc_config is None:
        once = rtc.RtcConfiguration(
            continual_gathering_policy=rtc.ContinualGatheringPolicy.GATHER_ONCE
        )
        options = replace(options, rtc_config=once)
    # Not every livekit-rtc that a program may bring along has it.
    if not alone and getattr(options, "single_peer_connection", True) is None:
        options = replace(options, single_peer_connection=False)
    return options
