"""livekit-rtc's native library does less when agents of one process connect together."""

from __future__ import annotations

import json
import uuid
from typing import Protocol

from tests.support.values import join_token, run_python

# It is the square of their number that is spared; of many more the library's log loses records.
ROOMS = 8

# Connects to the rooms of these tokens together; prints how often the library has gone through the
# machine's networks, by its own log.
_CONNECT = """
import asyncio, json, logging, os, sys
from livekit import rtc
from worker_agent.livekit_workarounds.room_options import spare

url, tokens, sparing = json.loads(sys.argv[1])

class Counting(logging.Handler):
    looks = 0
    def emit(self, record):
        Counting.looks += "Count of networks" in record.getMessage()

async def main():
    logging.getLogger("livekit").addHandler(Counting())
    logging.getLogger("livekit").setLevel(logging.DEBUG)
    rooms = [rtc.Room() for _ in tokens]
    if sparing:
        for room in rooms:
            spare(room)
    await asyncio.gather(*(room.connect(url, token) for room, token in zip(rooms, tokens)))
    assert all(room.isconnected() for room in rooms)
    await asyncio.sleep(2)  # the library hands its records over once a second
    print("looks:", Counting.looks, flush=True)
    os._exit(0)

asyncio.run(main())
"""


class LiveKitServer(Protocol):
    url: str
    api_key: str
    api_secret: str


def _looks(livekit: LiveKitServer, *, sparing: bool) -> int:
    tokens = [
        join_token(livekit.api_key, livekit.api_secret, f"options-{uuid.uuid4().hex}")
        for _ in range(ROOMS)
    ]
    said = run_python(_CONNECT, json.dumps([livekit.url, tokens, sparing]), LIVEKIT_RTC_DEBUG="1")
    return int(said.rpartition("looks:")[2])


def test_rooms_that_connect_together_have_the_networks_gone_through_far_less(
    livekit_server: LiveKitServer,
) -> None:
    spared = _looks(livekit_server, sparing=True)
    as_it_is = _looks(livekit_server, sparing=False)

    assert spared > 0
    assert as_it_is > 2 * spared, f"{as_it_is} and {spared}"
