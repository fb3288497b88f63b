"""The faults that the campaign makes without killing anything are what they are called."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
import redis
from livekit import api

from devstack.servers import find_redis_server
from tests.conftest import LiveKitServer, free_port, process, wait_until_answers
from tests.faults.gateway import PASSING, Garbage, spoil
from tests.faults.refusing_redis import Refusal, refuse
from tests.support.house import House

FOR_S = 0.6
# What a call of livekit-api's raises.
RAISES: dict[Garbage, type[Exception]] = {
    Garbage.EMPTY_LIST: AttributeError,
    Garbage.JSON_STRING: AttributeError,
    Garbage.NO_BODY: AttributeError,
    Garbage.HTML: api.TwirpError,
    Garbage.TEXT: Exception,  # what protobuf makes of it
    Garbage.CUT_OFF: aiohttp.ClientPayloadError,
    Garbage.NOTHING: aiohttp.ServerDisconnectedError,
}


@pytest.fixture(scope="module")
def gateway_port(
    livekit_server: LiveKitServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[int]:
    """A gateway before the LiveKit server of the tests."""
    port, livekit_port = free_port(), livekit_server.url.rpartition(":")[2]
    command = [sys.executable, "-m", "tests.faults.gateway", str(port), livekit_port]
    with process(*command, log=tmp_path_factory.mktemp("gateway") / "gateway.log"):
        wait_until_answers(f"http://127.0.0.1:{port}")
        yield port


@pytest_asyncio.fixture
async def livekit(house: House, gateway_port: int) -> AsyncIterator[api.LiveKitAPI]:
    url, server = f"ws://127.0.0.1:{gateway_port}", house.server
    async with api.LiveKitAPI(url, server.api_key, server.api_secret, failover=False) as opened:
        yield opened


async def rooms(livekit: api.LiveKitAPI) -> set[str]:
    listed = await livekit.room.list_rooms(api.ListRoomsRequest())
    return {room.name for room in listed.rooms}


@pytest.mark.parametrize("garbage", PASSING)
async def test_a_gateway_answers_one_call_with_garbage_and_passes_on_the_next(
    livekit: api.LiveKitAPI, gateway_port: int, house: House, garbage: Garbage
) -> None:
    assert house.room not in await rooms(livekit)
    spoiling = asyncio.create_task(spoil(gateway_port, garbage, carried_out=False))
    await asyncio.sleep(0.1)

    with pytest.raises(RAISES[garbage]):
        await livekit.room.create_room(api.CreateRoomRequest(name=house.room))

    assert await spoiling == 1
    assert house.room not in await rooms(livekit)


async def test_what_was_carried_out_has_only_lost_its_answer(
    livekit: api.LiveKitAPI, gateway_port: int, house: House
) -> None:
    spoiling = asyncio.create_task(spoil(gateway_port, Garbage.NOTHING, carried_out=True))
    await asyncio.sleep(0.1)

    with pytest.raises(aiohttp.ServerDisconnectedError):
        await livekit.room.create_room(api.CreateRoomRequest(name=house.room))

    assert await spoiling == 1
    assert house.room in await rooms(livekit)


async def test_for_a_time_every_call_is_answered_with_garbage(
    livekit: api.LiveKitAPI, gateway_port: int
) -> None:
    spoiling = asyncio.create_task(
        spoil(gateway_port, Garbage.EMPTY_LIST, for_s=FOR_S, carried_out=False)
    )
    await asyncio.sleep(0.1)
    for _ in range(3):
        with pytest.raises(AttributeError):
            await rooms(livekit)

    assert await spoiling == 3
    await rooms(livekit)


async def test_a_person_joins_by_the_gateway(
    house: House, gateway_port: int, livekit: api.LiveKitAPI
) -> None:
    await livekit.room.create_room(api.CreateRoomRequest(name=house.room))
    server = house.server
    token = api.AccessToken(server.api_key, server.api_secret).with_identity("ann")
    token.with_grants(api.VideoGrants(room_join=True, room=house.room))
    url = f"http://127.0.0.1:{gateway_port}/rtc"
    query = {"access_token": token.to_jwt(), "protocol": "15", "sdk": "js"}
    async with aiohttp.ClientSession() as http, http.ws_connect(url, params=query) as socket:
        answer = await socket.receive()

    assert answer.type is aiohttp.WSMsgType.BINARY


class _KeptRedis:
    """A Redis that keeps its data, and is started again when it dies, as a supervisor does it."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.config = directory / "redis.conf"
        self.config.write_text(
            f'bind 127.0.0.1\nport {self.port}\ndir {directory}\nappendonly yes\nsave ""\n'
        )
        self.pid = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep)
        self._thread.start()

    def _keep(self) -> None:
        binary = str(find_redis_server(os.environ))
        while not self._over.is_set():
            running = subprocess.Popen([binary, str(self.config)], stdout=subprocess.DEVNULL)
            self.pid = running.pid
            while running.poll() is None and not self._over.wait(0.02):
                pass
            running.kill()
            running.wait()

    def close(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture(scope="module")
def kept_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_KeptRedis]:
    """With 20,000 commands in its file."""
    kept = _KeptRedis(tmp_path_factory.mktemp("kept"))
    try:
        with redis.Redis.from_url(kept.url) as client:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                with contextlib.suppress(redis.ConnectionError):
                    client.ping()
                    break
            with client.pipeline(transaction=False) as pipeline:
                for number in range(20_000):
                    pipeline.set(f"key-{number}", "a value of about as much as there is in a field")
                pipeline.execute()
        yield kept
    finally:
        kept.close()


@pytest.mark.parametrize("refusal", Refusal)
def test_redis_answers_the_error_and_works_again(kept_redis: _KeptRedis, refusal: Refusal) -> None:
    kept = kept_redis
    refusing = threading.Thread(
        target=refuse,
        args=(refusal, FOR_S * 2),
        kwargs={"url": kept.url, "config": kept.config, "pid": lambda: kept.pid},
    )
    settings, said = kept.config.read_text(), set()
    refusing.start()
    with redis.Redis.from_url(kept.url, socket_timeout=1) as client:
        while refusing.is_alive():
            try:
                client.eval("return redis.call('SET', 'written', '1')", 0)
            except redis.ResponseError as error:
                said.add(f"{error.status_code or ''} {error}")
            except redis.ConnectionError as error:
                said.add(f"{error.status_code or ''} {error}")
            except redis.TimeoutError:
                pass
            time.sleep(0.02)
        refusing.join()
        assert client.set("written", "2")

    assert any(refusal in text for text in said), said
    assert kept.config.read_text() == settings
