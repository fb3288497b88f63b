"""Build, start and stop our own agent server, a livekit-agents program with our `rtc_session`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import pkgutil
import signal
from typing import cast

from livekit.agents import AgentServer, JobExecutorType

from dispatcher.errors import ConfigurationError
from worker_agent.program import rtc_session
from worker_agent.session import EntryPoint
from worker_agent.settings import AgentSettings

logger = logging.getLogger(__name__)


def build(settings: AgentSettings) -> AgentServer:
    """Make livekit-agents' server with our settings.

    Raises:
        ConfigurationError: there is no such entry point.
    """
    entrypoint = load_entrypoint(settings.entrypoint)  # fails here, and not in every job
    server = AgentServer(
        ws_url=settings.livekit_url,
        api_key=settings.livekit_api_key,
        api_secret=settings.livekit_api_secret.get_secret_value(),
        job_executor_type=JobExecutorType(settings.executor),
        num_idle_processes=settings.idle_processes,
        # For ever (its default gives up after 16 tries): the supervisor cannot do it better, and
        # sessions that run are kept.
        max_retry=1_000_000,
        drain_timeout=settings.drain_s,
        host=settings.host,
        port=settings.port,
        # Imported once, before the job processes fork off.
        preload_modules=["worker_agent.program", settings.entrypoint.partition(":")[0]],
    )
    rtc_session(server, entrypoint, agent_name=settings.agent_name)
    return server


def load_entrypoint(path: str) -> EntryPoint:
    """Import the coroutine function that `module:function` names.

    Raises:
        ConfigurationError: there is no such module or function.
    """
    try:
        entrypoint = pkgutil.resolve_name(path)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigurationError(
            f"Usher cannot start, USHER_AGENT_ENTRYPOINT={path}: {error}; name it as "
            "<module>:<function>, with the module's folder in PYTHONPATH"
        ) from error
    if not asyncio.iscoroutinefunction(entrypoint):
        raise ConfigurationError(
            f"Usher cannot start, USHER_AGENT_ENTRYPOINT={path} is not an async function: name one"
        )
    return cast(EntryPoint, entrypoint)


async def serve(settings: AgentSettings) -> None:
    """Serve until SIGTERM or SIGINT, then let the sessions end; a second signal ends at once."""
    server = build(settings)
    stop = _stop_on_signal()
    running = asyncio.create_task(server.run(), name="agent-server")
    await asyncio.wait({running, asyncio.ensure_future(stop.wait())}, return_when="FIRST_COMPLETED")
    if not running.done():
        logger.info("draining", extra={"drain_s": settings.drain_s})
        with contextlib.suppress(asyncio.TimeoutError):
            await server.drain()
    await server.aclose()
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
