"""When does an agent server report itself to Redis?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import redis
from livekit.agents import AgentServer, JobContext, JobExecutorType

from dispatcher.ledger.async_client import AsyncLedger
from tests.conftest import LiveKitServer
from tests.support.offers import identity
from tests.support.values import eventually
from worker_agent import load_report
from worker_agent.load_report import Reporter, ReportOptions
from worker_agent.request_filter import RequestFilter

LONG_S = 60.0


async def _does_nothing(_: JobContext) -> None:
    pass


@pytest_asyncio.fixture
async def server(livekit_server: LiveKitServer) -> AsyncIterator[AgentServer]:
    """A running agent server that reports nothing by itself."""
    server = AgentServer(
        job_executor_type=JobExecutorType.THREAD,
        host="127.0.0.1",
        port=0,
        ws_url=livekit_server.url,
        api_key=livekit_server.api_key,
        api_secret=livekit_server.api_secret,
    )
    server.rtc_session(_does_nothing, agent_name="reporting")
    registered = asyncio.Event()
    server.on("worker_registered", lambda *_: registered.set())
    running = asyncio.create_task(server.run())
    await asyncio.wait_for(registered.wait(), LONG_S)
    yield server
    await server.aclose()
    await running


@pytest_asyncio.fixture
async def reporter(
    server: AgentServer,
    async_store: AsyncLedger,
    raw: redis.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[Reporter]:
    """It has made its first report, and the next one is a long time away."""
    monkeypatch.setattr(load_report, "_GAP_S", LONG_S)
    request_filter = RequestFilter(identity(), async_store)
    options = ReportOptions(period_s=LONG_S)
    reporter = Reporter(identity(), server, request_filter, async_store, options)
    running = asyncio.create_task(reporter.run())
    await eventually(lambda: raw.hlen("usher:agent_servers") == 1)
    yield reporter
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_that_livekit_has_registered_it_is_reported_at_once(
    reporter: Reporter, raw: redis.Redis
) -> None:
    """A session that waits for an agent server is sent as soon as there is one."""
    raw.delete("usher:agent_servers")

    reporter.registered()

    await eventually(lambda: raw.hlen("usher:agent_servers") == 1)


async def test_changes_of_its_slots_are_reported_together(
    reporter: Reporter, raw: redis.Redis
) -> None:
    raw.delete("usher:agent_servers")

    for _ in range(10):
        reporter.changed()
    await asyncio.sleep(0.5)

    assert raw.hlen("usher:agent_servers") == 0
