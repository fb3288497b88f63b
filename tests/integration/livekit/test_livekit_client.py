"""Does the real LiveKit server do what our client says that it does?"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace

import aiohttp
import pytest
import pytest_asyncio
from livekit import api
from livekit.protocol.models import ParticipantInfo

from dispatcher.clients.models import LiveKitCredentials
from dispatcher.domain.models import Dispatch
from dispatcher.domain.rooms import RoomDispatch
from dispatcher.errors import PermanentLiveKitError, TransientLiveKitError
from dispatcher.livekit.client import LiveKitClient, LiveKitClients
from tests.support.house import House
from tests.support.sockets import LossyProxy, listening, never_answering
from tests.support.values import a_dispatch

TIMEOUT_S = 2.0


@pytest_asyncio.fixture
async def clients() -> AsyncIterator[LiveKitClients]:
    opened = LiveKitClients(timeout_s=TIMEOUT_S)
    yield opened
    await opened.aclose()


@pytest.fixture
def credentials(house: House) -> LiveKitCredentials:
    server = house.server
    return LiveKitCredentials(url=server.url, api_key=server.api_key, api_secret=server.api_secret)


@pytest_asyncio.fixture
async def livekit(clients: LiveKitClients, credentials: LiveKitCredentials) -> LiveKitClient:
    return clients.for_credentials(credentials)


@pytest.fixture
def dispatch(house: House) -> Dispatch:
    return a_dispatch(room_name=house.room, generation=3, container="box-1", agent_metadata="ü{}")


async def test_creating_a_dispatch_makes_the_room_and_lists_our_id_and_generation(
    livekit: LiveKitClient, dispatch: Dispatch, house: House
) -> None:
    created = await livekit.create_dispatch(dispatch)

    assert await livekit.list_dispatch(house.room) == [
        RoomDispatch(livekit_dispatch_id=created, dispatch_id="dsp_1", generation=3)
    ]


@pytest.mark.parametrize(("generation", "kind"), [(1, "dispatch"), (2, "redispatch")])
async def test_a_dispatch_carries_ours_as_attributes_and_the_clients_metadata_unchanged(
    generation: int, kind: str, livekit: LiveKitClient, dispatch: Dispatch, house: House
) -> None:
    await livekit.create_dispatch(replace(dispatch, generation=generation))

    (listed,) = await house.dispatches()
    assert dict(listed.attributes) == {
        "usher.dispatch_id": "dsp_1",
        "usher.generation": str(generation),
        "usher.client_id": "acme",
        "usher.container": "box-1",
        "usher.request_type": kind,
        "usher.requested_at_ms": str(dispatch.requested_at_ms),
    }
    assert (listed.agent_name, listed.metadata) == ("session-agent-rag", "ü{}")


async def test_a_room_is_made_with_its_agent_and_without_those_that_have_no_name(
    livekit: LiveKitClient, dispatch: Dispatch, house: House
) -> None:
    await livekit.create_room(dispatch)

    (listed,) = await house.lk.agent_dispatch.list_dispatch(house.room)
    assert (listed.agent_name, listed.metadata) == ("session-agent-rag", "ü{}")
    assert await livekit.list_dispatch(house.room, there=True) == [
        RoomDispatch(livekit_dispatch_id=listed.id, dispatch_id="dsp_1", generation=3)
    ]


async def test_the_job_of_a_room_carries_what_that_of_a_dispatch_does(
    livekit: LiveKitClient, dispatch: Dispatch, house: House
) -> None:
    await livekit.create_room(dispatch)
    await livekit.create_dispatch(dispatch)

    by_room, by_dispatch = await house.dispatches()
    assert by_room.attributes == by_dispatch.attributes
    assert by_room.restart_policy == by_dispatch.restart_policy


async def test_agents_without_a_name_are_left_where_they_are_wanted(
    livekit: LiveKitClient, dispatch: Dispatch, house: House
) -> None:
    await livekit.create_room(dispatch, automatic=True)

    listed = await house.lk.agent_dispatch.list_dispatch(house.room)
    assert sorted(each.agent_name for each in listed) == ["", "session-agent-rag"]


async def test_nobody_is_asked_for_with_a_room_that_is_there_already(
    livekit: LiveKitClient, dispatch: Dispatch, house: House
) -> None:
    await house.lk.room.create_room(api.CreateRoomRequest(name=house.room, metadata="theirs"))

    await livekit.create_room(dispatch)

    assert await livekit.list_dispatch(house.room, there=True) == []
    found = await house.lk.room.list_rooms(api.ListRoomsRequest(names=[house.room]))
    assert found.rooms[0].metadata == "theirs"


async def test_dispatches_that_are_not_ours_are_not_listed(
    livekit: LiveKitClient, dispatch: Dispatch, house: House
) -> None:
    created = await livekit.create_dispatch(dispatch)
    await house.lk.agent_dispatch.create_dispatch(
        api.CreateAgentDispatchRequest(room=house.room, agent_name="foreign")
    )

    listed = await livekit.list_dispatch(house.room)
    assert [item.livekit_dispatch_id for item in listed] == [created]


async def test_listing_a_missing_room_is_empty_and_quick(
    livekit: LiveKitClient, house: House
) -> None:
    started_s = time.monotonic()

    assert await livekit.list_dispatch(house.room) == []
    assert (await livekit.look(house.room)).agents == ()
    assert time.monotonic() - started_s < 2.5  # LiveKit's own ListDispatch takes 3 s for it


async def test_a_deleted_dispatch_is_listed_no_longer_and_can_be_deleted_again(
    livekit: LiveKitClient, dispatch: Dispatch, house: House
) -> None:
    created = await livekit.create_dispatch(dispatch)

    for _ in range(2):
        await livekit.delete_dispatch(created, house.room)

    assert await livekit.list_dispatch(house.room) == []


async def test_deleting_a_dispatch_that_never_was_is_fine(
    livekit: LiveKitClient, dispatch: Dispatch, house: House
) -> None:
    created = await livekit.create_dispatch(dispatch)

    await livekit.delete_dispatch("AD_never", house.room)

    assert [item.livekit_dispatch_id for item in await livekit.list_dispatch(house.room)] == [
        created
    ]


async def test_a_wrong_secret_is_refused_for_good(
    clients: LiveKitClients, credentials: LiveKitCredentials, dispatch: Dispatch, house: House
) -> None:
    stranger = clients.for_credentials(replace(credentials, api_secret="x" * 32))

    for request in (
        stranger.create_room(dispatch),
        stranger.create_dispatch(dispatch),
        stranger.list_dispatch(house.room),
        stranger.look(house.room),
        stranger.delete_dispatch("AD_1", house.room),
    ):
        with pytest.raises(PermanentLiveKitError, match="401"):
            await request
    assert await house.dispatches() == []


async def test_a_livekit_that_never_answers_is_given_up_within_the_timeout(
    credentials: LiveKitCredentials, dispatch: Dispatch
) -> None:
    hung = LiveKitClients(timeout_s=1)
    async with listening(never_answering) as port:
        client = hung.for_credentials(replace(credentials, url=f"ws://127.0.0.1:{port}"))
        started_s = time.monotonic()
        with pytest.raises(TransientLiveKitError) as caught:
            await client.create_dispatch(dispatch)
        assert time.monotonic() - started_s < 1.9
    await hung.aclose()

    assert caught.value.outcome_unknown


async def test_a_lost_reply_leaves_the_dispatch_there_and_says_that_it_may_be(
    clients: LiveKitClients, credentials: LiveKitCredentials, dispatch: Dispatch, house: House
) -> None:
    target_port = int(credentials.url.rpartition(":")[2])
    proxy = LossyProxy(target_port=target_port, losing=b"CreateDispatch", times=1)
    async with listening(proxy) as port:
        client = clients.for_credentials(replace(credentials, url=f"ws://127.0.0.1:{port}"))
        with pytest.raises(TransientLiveKitError) as caught:
            await client.create_dispatch(dispatch)

    assert proxy.lost == 1
    assert caught.value.outcome_unknown
    assert await house.generations() == [("dsp_1", "3")]


async def test_only_agents_that_are_there_are_listed(
    livekit: LiveKitClient, dispatch: Dispatch, house: House
) -> None:
    before_ms = time.time() * 1000
    await house.join("ann", agent=False, attributes={"usher.dispatch_id": "dsp_1"})
    identity = await house.join_for(dispatch)
    await house.join("foreign")

    agents = {agent.identity: agent for agent in (await livekit.look(house.room)).agents}
    assert set(agents) == {identity, "foreign"}
    assert agents[identity].dispatch_id == "dsp_1"
    assert agents[identity].generation == 3
    assert agents[identity].agent_name == "session-agent-rag"
    assert before_ms - 1000 <= agents[identity].joined_at_ms <= time.time() * 1000 + 1000
    assert (agents["foreign"].dispatch_id, agents["foreign"].generation) == ("", None)


async def test_an_agent_that_is_still_joining_is_not_there_yet(
    livekit: LiveKitClient, house: House
) -> None:
    """It has asked for the room by WebSocket, as every SDK does first, and connects no media."""
    token = (
        api.AccessToken(house.server.api_key, house.server.api_secret)
        .with_identity("slow")
        .with_kind("agent")
        .with_grants(api.VideoGrants(room_join=True, room=house.room, agent=True))
    )
    url = f"{house.server.url}/rtc?access_token={token.to_jwt()}&auto_subscribe=1&protocol=16"
    async with aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        await socket.receive(timeout=30)  # the join response
        listed = await house.lk.room.list_participants(api.ListParticipantsRequest(room=house.room))
        (slow,) = listed.participants
        assert slow.state != ParticipantInfo.ACTIVE

        assert (await livekit.look(house.room)).agents == ()


async def test_deleting_a_dispatch_of_a_missing_room_does_not_take_for_ever(
    livekit: LiveKitClient, house: House
) -> None:
    started_s = time.monotonic()

    with pytest.raises(TransientLiveKitError):
        await livekit.delete_dispatch("AD_1", house.room)

    assert time.monotonic() - started_s < TIMEOUT_S + 1
