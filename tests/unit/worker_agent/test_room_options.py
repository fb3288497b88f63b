"""What does Usher choose for an agent that has not said how it connects?"""

from __future__ import annotations

import asyncio
from typing import Any

from livekit import rtc

from worker_agent.livekit_workarounds.room_options import connecting, spare, sparing

ONCE = rtc.ContinualGatheringPolicy.GATHER_ONCE
CONTINUALLY = rtc.ContinualGatheringPolicy.GATHER_CONTINUALLY


def test_addresses_are_looked_for_once() -> None:
    for alone in (True, False):
        chosen = sparing(rtc.RoomOptions(auto_subscribe=False), alone=alone)
        assert chosen.rtc_config is not None
        assert chosen.rtc_config.continual_gathering_policy == ONCE
        assert chosen.rtc_config.ice_transport_type == rtc.RtcConfiguration().ice_transport_type
        assert chosen.auto_subscribe is False


def test_one_that_connects_alone_has_livekit_s_own_connection_and_others_have_two() -> None:
    assert sparing(rtc.RoomOptions(), alone=True).single_peer_connection is None
    assert sparing(rtc.RoomOptions(), alone=False).single_peer_connection is False


def test_what_a_program_has_chosen_stays() -> None:
    own = rtc.RoomOptions(
        rtc_config=rtc.RtcConfiguration(continual_gathering_policy=CONTINUALLY),
        single_peer_connection=True,
    )

    assert sparing(own, alone=False) == own


class _Room:
    """Keeps how it is asked to connect."""

    def __init__(self, *, fails: bool = False) -> None:
        self.asked: list[rtc.RoomOptions] = []
        self._fails = fails

    async def connect(self, url: str, token: str, options: rtc.RoomOptions) -> None:
        self.asked.append(options)
        await asyncio.sleep(0.01)
        if self._fails:
            raise rtc.ConnectError("nobody there")


async def test_rooms_that_connect_together_know_of_each_other() -> None:
    rooms: list[Any] = [_Room(), _Room(fails=True), _Room()]
    for room in rooms:
        spare(room)

    results = await asyncio.gather(
        *(room.connect("ws://x", "token") for room in rooms), return_exceptions=True
    )

    assert [type(result) for result in results] == [type(None), rtc.ConnectError, type(None)]
    chosen = [room.asked[0].single_peer_connection for room in rooms]
    assert chosen == [None, False, False]
    with connecting.one() as alone:
        assert alone  # who failed to connect is not counted any more
