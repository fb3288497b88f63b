"""Which events of the native library does an agent's room get?

livekit-rtc (1.1.21, `FfiQueue`) hands every event of a process to every room in it, each time on
another thread, and a room drops what is not its own. With the thread executor that is each event
times all agents.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from livekit import rtc
from livekit.rtc._ffi_client import FfiClient
from livekit.rtc._proto.ffi_pb2 import FfiEvent

logger = logging.getLogger(__name__)

Wanted = Callable[[FfiEvent], bool]


def narrow(room: rtc.Room) -> None:
    """Have a room that has connected get what may be its own.

    Those names are not public; with a library that has others everything stays as it is.
    """
    try:
        _narrow(room)
    except (AttributeError, TypeError, ValueError):
        logger.warning("this livekit-rtc is not known; its rooms get each other's events")


def _narrow(room: rtc.Room) -> None:
    handle = room._ffi_handle
    if handle is None:
        return  # it has disconnected since
    events = FfiClient.instance.queue
    with events._lock:
        for place, (queue, loop, wanted) in enumerate(events._subscribers):
            if queue is room._ffi_queue:
                events._subscribers[place] = queue, loop, _of_room(handle.handle, wanted)


def _of_room(handle: int, wanted: Wanted | None) -> Wanted:
    """Answers to what a room has asked carry no handle; those about sound go to its source."""

    def may_be_its_own(event: FfiEvent) -> bool:
        which = event.WhichOneof("message")
        if which == "room_event":
            return event.room_event.room_handle == handle
        return which != "capture_audio_frame" and (wanted is None or wanted(event))

    return may_be_its_own
