"""Agent servers that are not as ours: `python -m tests.faults.agents KIND`.

| kind | what |
| --- | --- |
| `ours` | as `python -m worker_agent` |
| `default-load` | with `own_load`: livekit-agents' own load report (CPU) and threshold |
| `refusing` | reports itself as serving everybody, and refuses every job as another client's |
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from livekit.agents import AgentServer, JobExecutorType

from devstack import PROJECT_ROOT
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.observability.logs import configure
from dispatcher.settings import CommonSettings, load
from tests.acceptance.session import wait_for
from tests.support.stacks import RunningStack
from worker_agent.attachment import identify
from worker_agent.load_report import Reporter, ReportOptions
from worker_agent.program import Guarded, rtc_session
from worker_agent.request_filter import RequestFilter
from worker_agent.server import load_entrypoint, serve
from worker_agent.settings import AgentSettings

_STARTS_WITHIN_S = 60


def bare_server(settings: AgentSettings, **options: Any) -> AgentServer:
    """livekit-agents' server with its own defaults, nothing of ours in it."""
    return AgentServer(
        ws_url=settings.livekit_url,
        api_key=settings.livekit_api_key,
        api_secret=settings.livekit_api_secret.get_secret_value(),
        job_executor_type=JobExecutorType(settings.executor),
        host=settings.host,
        port=settings.port,
        **options,
    )


async def _serve(kind: str, settings: AgentSettings, common: CommonSettings) -> None:
    if kind == "ours":
        await serve(settings)
        return
    entrypoint = load_entrypoint(settings.entrypoint)
    if kind == "default-load":
        server = bare_server(settings)
        rtc_session(server, entrypoint, agent_name=settings.agent_name, own_load=True)
        await server.run()
        return
    identity = identify(settings, settings.agent_name)
    async with AsyncLedger(common) as store:
        own = dataclasses.replace(identity, client_id="somebody-else")
        request_filter = RequestFilter(own, store)
        server = bare_server(settings, load_threshold=math.inf)
        options = ReportOptions(period_s=settings.report_s)
        reporter = Reporter(identity, server, request_filter, store, options)
        server.load_fnc = reporter.load
        guarded = Guarded(entrypoint)
        server.rtc_session(guarded, agent_name=settings.agent_name, on_request=request_filter)
        server.on("worker_registered", reporter.registered)
        server.on("worker_started", lambda *_: tasks.append(asyncio.create_task(reporter.run())))
        tasks: list[asyncio.Task[None]] = []
        await server.run()


@contextlib.contextmanager
def agent_server(
    stack: RunningStack, log: Path, *, name: str, kind: str = "ours", slots: int = 40
) -> Iterator[subprocess.Popen[bytes]]:
    """One more agent server beside the stack's own, registered; killed at the end."""
    environ = {
        **os.environ,
        "REDIS_URL": stack.redis_url,
        "LIVEKIT_URL": stack.livekit_url,
        "LIVEKIT_API_KEY": stack.livekit_api_key,
        "LIVEKIT_API_SECRET": stack.livekit_api_secret,
        "USHER_AGENT_NAME": name,
        "USHER_AGENT_SLOTS": str(slots),
        "USHER_AGENT_EXECUTOR": "thread",
        "USHER_AGENT_PORT": "0",
        "USHER_LOG_FORMAT": "text",
        "PYTHONPATH": str(PROJECT_ROOT),
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["nice", "-n", "10", sys.executable, "-m", "tests.faults.agents", kind],
            cwd=PROJECT_ROOT,
            env=environ,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_for(
                f"agent server for {name}",
                lambda: b"registered worker" in log.read_bytes() or None,
                within_s=_STARTS_WITHIN_S,
            )
            yield process
        finally:
            process.kill()
            process.wait()


if __name__ == "__main__":
    common_settings = load(CommonSettings)
    configure(log_format="text", level="INFO")
    asyncio.run(_serve(sys.argv[1], load(AgentSettings), common_settings))
