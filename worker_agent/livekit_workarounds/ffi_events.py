"""Have an agent's room get only those events of the native library that can be its own.

For livekit-rtc 1.1 (1.1.21, `FfiQueue`:
https://github.com/livekit/python-sdks/blob/main/livekit-rtc/livekit/rtc/_ffi_client.py). It hands
every event of a process to every room in it, each on its own thread
(docs/decisions/0045-room-events.md).

Guard: with other names everything stays as it is, and the log says so.
Remove when livekit-rtc hands a room its own events.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

from livekit import rtc

from worker_agent.livekit_workarounds import unknown_release

if TYPE_CHECKING:
    from livekit.rtc._proto.ffi_pb2 import FfiEvent

Wanted: TypeAlias = "Callable[[FfiEvent], bool]"


def narrow(room: rtc.Room) -> None:
    """Have a room that has connected get what may be its own."""
    try:
        from livekit.rtc._ffi_client import FfiClient

        handle = room._ffi_handle
        if handle is None:
            return  # it has disconnected since
        events = FfiClient.instance.queue
        with events._lock:
            for place, (queue, loop, wanted) in enumerate(events._subscribers):
                if queue is room._ffi_queue:
                    events._subscribers[place] = queue, loop, _of_room(handle.handle, wanted)
    except (AttributeError, ImportError, TypeError, ValueError):
        unknown_release.warn("livekit", "its rooms get each other's events")


def _of_room(handle: int, wanted: Wanted | None) -> Wanted:
    """A filter that lets through the room's own events and the answers to its requests.

    The answers carry no handle. Those about sound go to the audio source, not to the room.
    """

    def may_be_its_own(event: FfiEvent) -> bool:
        which = event.WhichOneof("message")
        if which == "room_event":
            return event.room_event.room_handle == handle
        return which != "capture_audio_frame" and (wanted is None or wanted(event))

    return may_be_its_own
