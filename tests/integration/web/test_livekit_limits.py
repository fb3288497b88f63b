"""The door takes of a name what the real LiveKit server takes, and no byte more."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import httpx
import pytest
from livekit import api
from pydantic import ValidationError

from dispatcher.clients.models import LiveKitCredentials
from tests.support.house import House
from web.contract.participant_tokens import participant_token
from web.contract.request_schemas import TokenRequest

# Each is 256 bytes long in UTF-8.
LONGEST = {"one byte": "x" * 256, "two bytes": "ж" * 128, "four bytes": "🎙" * 64}
longest = pytest.mark.parametrize("name", LONGEST.values(), ids=LONGEST)


def is_taken(**body: Any) -> bool:
    """Whether the door takes a request."""
    try:
        TokenRequest.model_validate(body)
    except ValidationError:
        return False
    return True


async def may_join(house: House, *, room: str, identity: str) -> bool:
    """Whether LiveKit lets a person in whose token is made of such names."""
    server = house.server
    token = participant_token(
        LiveKitCredentials(url=server.url, api_key=server.api_key, api_secret=server.api_secret),
        TokenRequest(),
        dispatch_id="dsp_1",
        room_name=room,
        identity=identity,
    )
    url = server.url.replace("ws", "http", 1)
    async with httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(f"{url}/rtc/validate", params={"access_token": token})
    assert answer.status_code in (200, 400), answer.text
    return answer.status_code == 200


@longest
async def test_a_rooms_name_is_taken_as_livekit_takes_it(house: House, name: str) -> None:
    for room, fits in ((name, True), (name + "x", False)):
        assert is_taken(room_name=room) is fits
        assert await may_join(house, room=room, identity="ann") is fits
    with pytest.raises(api.TwirpError):
        await house.lk.room.create_room(api.CreateRoomRequest(name=name + "x"))


@longest
async def test_an_identity_is_taken_as_livekit_takes_it(house: House, name: str) -> None:
    for identity, fits in ((name, True), (name + "x", False)):
        assert is_taken(participant_identity=identity) is fits
        assert await may_join(house, room=house.room, identity=identity) is fits


@pytest.mark.parametrize(
    "deployment", ["staging", "ж" * 32, "a.b-c~D!", "d" * 65, "a_b", "a b", "a\n", "\x7f"]
)
async def test_a_deployment_is_taken_as_livekit_takes_it(house: House, deployment: str) -> None:
    wanted = api.CreateAgentDispatchRequest(
        room=house.room, agent_name="nobody", deployment=deployment
    )
    refused: AbstractContextManager[object] = nullcontext()
    if not is_taken(room_config={"agents": [{"deployment": deployment}]}):
        refused = pytest.raises(api.TwirpError, match="deployment")
    with refused:
        await house.lk.agent_dispatch.create_dispatch(wanted)
