"""How is the agent server put together, started and stopped?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import secrets
import signal
import socket

from livekit.agents import AgentServer, JobExecutorType

from dispatcher.settings import CommonSettings
from dispatcher.store import AsyncLedger
from worker_agent import session
from worker_agent.offers import AgentServerIdentity
from worker_agent.reporting import Reporter
from worker_agent.request_filter import RequestFilter
from worker_agent.settings import AgentSettings

logger = logging.getLogger(__name__)


def build(settings: AgentSettings) -> AgentServer:
    """livekit-agents' server with our settings; its load report and filter come in `serve`."""
    return AgentServer(
        ws_url=settings.livekit_url,
        api_key=settings.livekit_api_key,
        api_secret=settings.livekit_api_secret.get_secret_value(),
        job_executor_type=JobExecutorType(settings.executor),
        num_idle_processes=settings.idle_processes,
        # Never unavailable for load: livekit-agents would then answer "not available" by itself,
        # and nobody would learn why. The request filter refuses when every slot is taken.
        load_threshold=math.inf,
        # For ever (its default gives up after 16 tries): the supervisor cannot do it better, and
        # sessions that run are kept.
        max_retry=1_000_000,
        drain_timeout=settings.drain_s,
        host=settings.host,
        port=settings.port,
        # Imported once, before the job processes fork off.
        preload_modules=["worker_agent.session", settings.entrypoint.partition(":")[0]],
    )


def identify(settings: AgentSettings) -> AgentServerIdentity:
    """Who this process is; LiveKit's own worker id changes with every registration."""
    return AgentServerIdentity(
        agent_server_id=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        agent_name=settings.agent_name,
        container=settings.container,
        client_id=settings.client_id,
        slots=settings.slots,
    )


async def serve(settings: AgentSettings, common: CommonSettings) -> None:
    """Serve until SIGTERM or SIGINT, then let the sessions end; a second signal ends at once."""
    session.load_entrypoint(settings.entrypoint)  # a wrong one shall fail here, not in every job
    server = build(settings)
    identity = identify(settings)
    async with AsyncLedger(common) as store:
        request_filter = RequestFilter(identity, store, retention_s=common.retention_s)
        reporter = Reporter(identity, server, request_filter, store, period_s=settings.report_s)
        server.load_fnc = reporter.load
        server.rtc_session(session.run, agent_name=settings.agent_name, on_request=request_filter)
        stop = _stop_on_signal()
        reporting: asyncio.Task[None] | None = None

        def started(*_: object) -> None:
            nonlocal reporting
            reporting = asyncio.create_task(reporter.run(), name="reporter")

        server.on("worker_started", started)
        server.on("worker_registered", reporter.registered)
        running = asyncio.create_task(server.run(), name="agent-server")
        await asyncio.wait(
            {running, asyncio.ensure_future(stop.wait())}, return_when="FIRST_COMPLETED"
        )
        if not running.done():
            logger.info("draining", extra={"drain_s": settings.drain_s})
            with contextlib.suppress(asyncio.TimeoutError):
                await server.drain()
        await server.aclose()
        if reporting is not None:
            reporting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reporting
        await running


def _stop_on_signal() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    return stop
