"""Fixtures of the integration tests: the session's Redis, emptied, a LiveKit room, services."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
import redis
from livekit import api

from dispatcher.clients.registry import registry
from dispatcher.domain.models import AgentServerReport, Dispatch
from dispatcher.ledger import dispatches, reports
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.celery_messages import Template
from dispatcher.ledger.client import Ledger
from dispatcher.lifecycle.services import Services, open_services
from dispatcher.settings import CommonSettings, load
from dispatcher.worker.message_templates import templates
from tests.support.clientsfile import Open, opening
from tests.support.house import House, OpenServices, Request
from tests.support.ledgers import keep_templates
from tests.support.ownredis import OwnRedis
from tests.support.scenario import Scenario
from tests.support.values import AGENT_NAME, a_server, new_dispatch

if TYPE_CHECKING:
    from tests.conftest import LiveKitServer

CLIENT_ID = "acme"


@pytest.fixture(scope="session")
def celery_templates(redis_url: str) -> tuple[Template, ...]:
    """The templates of Celery's messages that each worker keeps in Redis.

    Our Celery application reads its settings only once: here, for all tests of this process.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("REDIS_URL", redis_url)
        patch.setenv("USHER_REDIS_TIMEOUT_S", "5")
        return templates()


@pytest.fixture
def raw(redis_url: str, celery_templates: tuple[Template, ...]) -> Iterator[redis.Redis]:
    """The session's Redis, empty except for the templates of Celery's messages."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushall()
        keep_templates(client, celery_templates)
        yield client


@pytest.fixture
def common(raw: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> CommonSettings:
    """Settings that point at the session's Redis, with time for a busy machine."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("USHER_REDIS_TIMEOUT_S", "5")
    monkeypatch.setenv("USHER_REDIS_WORKER_TIMEOUT_S", "5")
    return load(CommonSettings)


@pytest.fixture
def store(common: CommonSettings) -> Iterator[Ledger]:
    """The blocking ledger."""
    ledger_store = Ledger(common)
    yield ledger_store
    ledger_store.close()


@pytest_asyncio.fixture
async def async_store(common: CommonSettings) -> AsyncIterator[AsyncLedger]:
    """The asyncio ledger."""
    async with AsyncLedger(common) as opened:
        yield opened


@pytest_asyncio.fixture
async def house(livekit_server: LiveKitServer) -> AsyncIterator[House]:
    """A LiveKit room that no other test uses."""
    url = livekit_server.url.replace("ws", "http", 1)
    key, secret = livekit_server.api_key, livekit_server.api_secret
    async with api.LiveKitAPI(url, key, secret, failover=False) as lk:
        opened = House(server=livekit_server, lk=lk, room=f"room-{uuid.uuid4().hex}")
        yield opened
        await opened.empty()


@pytest_asyncio.fixture
async def services_for(
    common: CommonSettings, livekit_server: LiveKitServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[OpenServices]:
    """Open the services of a worker process; keyword arguments are environment variables."""
    opened: list[Services] = []

    async def open_with(**environ: str) -> Services:
        values = {
            "LIVEKIT_URL": livekit_server.url,
            "LIVEKIT_API_KEY": livekit_server.api_key,
            "LIVEKIT_API_SECRET": livekit_server.api_secret,
            "USHER_CLIENT_ID": CLIENT_ID,
            "USHER_API_KEY_SHA256": hashlib.sha256(b"key").hexdigest(),
            "USHER_AGENT_NAMES": AGENT_NAME,
            **environ,
        }
        for name, value in values.items():
            monkeypatch.setenv(name, value)
        registry.cache_clear()
        opened.append(await open_services())
        registry.cache_clear()
        return opened[-1]

    yield open_with
    for services in opened:
        await services.aclose()


@pytest.fixture
def agent_server(store: Ledger) -> AgentServerReport:
    """An agent server that has reported itself, with room for more."""
    report = a_server()
    store.run(reports.report_agent_server(report, ttl_s=600))
    return report


@pytest.fixture
def no_agent_server(store: Ledger) -> Callable[[], None]:
    """Remove the agent server's report."""

    def take_away() -> None:
        store.run(reports.report_agent_server(a_server(), ttl_s=0))

    return take_away


@pytest_asyncio.fixture
async def services(services_for: OpenServices, agent_server: AgentServerReport) -> Services:
    """A worker process's services; verification gives up after 1 s and looks every 0.1 s."""
    return await services_for(USHER_VERIFY_TIMEOUT_S="1", USHER_VERIFY_POLL_S="0.1")


@pytest.fixture
def request_dispatch(store: Ledger, house: House, raw: redis.Redis) -> Request:
    """Write a new dispatch for the room of `house`, take its message, and return its record."""

    def write(dispatch_id: str = "dsp_1", **changes: object) -> Dispatch:
        new = new_dispatch(dispatch_id, **{"room_name": house.room, **changes})
        store.run(dispatches.create(new, due_in_s=2.0, detail={"by": "test"}))
        raw.lpop("dispatch")
        dispatch = store.run(dispatches.read(dispatch_id))
        assert dispatch is not None
        return dispatch

    return write


@pytest.fixture
def look(store: Ledger) -> Callable[[], Dispatch]:
    """Read the record of `dsp_1`."""

    def read() -> Dispatch:
        dispatch = store.run(dispatches.read("dsp_1"))
        assert dispatch is not None
        return dispatch

    return read


@pytest.fixture
def scenario(
    house: House,
    store: Ledger,
    raw: redis.Redis,
    request_dispatch: Request,
    look: Callable[[], Dispatch],
) -> Scenario:
    """The room, the Redis and the ways to a dispatch, for tests that want most of them."""
    return Scenario(house=house, store=store, raw=raw, request_dispatch=request_dispatch, look=look)


@pytest.fixture
def own_redis(tmp_path: Path, celery_templates: tuple[Template, ...]) -> Iterator[OwnRedis]:
    """A Redis of the test's own, running, with the templates of Celery's messages."""
    server = OwnRedis(tmp_path)
    server.start()
    with redis.Redis.from_url(server.url) as client:
        keep_templates(client, celery_templates)
    yield server
    server.stop()


@pytest.fixture
def own_common(own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch) -> CommonSettings:
    """Settings that point at the test's own Redis, with time-outs of 1 s."""
    monkeypatch.setenv("REDIS_URL", own_redis.url)
    monkeypatch.setenv("USHER_REDIS_TIMEOUT_S", "1")
    monkeypatch.setenv("USHER_REDIS_WORKER_TIMEOUT_S", "1")
    return load(CommonSettings)


@pytest.fixture
def open_with(
    common: CommonSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    """Open the application for the given clients, with the session's Redis."""
    yield from opening(tmp_path, monkeypatch)
