"""What if agents did not ask the ledger? This agent server takes every job and runs it bare.

It reports itself to the ledger as ours does, so that dispatches are sent to it, and neither claims
nor looks again nor renews anything.
"""

from __future__ import annotations

import asyncio
import math

from livekit.agents import JobContext, JobRequest

from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.observability.logs import configure
from dispatcher.settings import CommonSettings, load
from tests.faults.agents import bare_server
from tests.faults.campaign.agent import entrypoint
from worker_agent.attachment import identify
from worker_agent.load_report import Reporter, ReportOptions
from worker_agent.request_filter import RequestFilter
from worker_agent.settings import AgentSettings


async def take_every_job(request: JobRequest) -> None:
    await request.accept()


async def run(ctx: JobContext) -> None:
    await entrypoint(ctx)


async def main() -> None:
    common, settings = load(CommonSettings), load(AgentSettings)
    configure(log_format=common.log_format, level=common.log_level)
    server = bare_server(settings, load_threshold=math.inf)
    identity = identify(settings, settings.agent_name)
    async with AsyncLedger(common) as store:
        # The filter only counts its slots here; it is never asked.
        uninvolved = RequestFilter(identity, store)
        options = ReportOptions(period_s=settings.report_s)
        reporter = Reporter(identity, server, uninvolved, store, options)
        server.load_fnc = reporter.load
        server.rtc_session(run, agent_name=settings.agent_name, on_request=take_every_job)
        tasks: list[asyncio.Task[None]] = []
        server.on("worker_started", lambda *_: tasks.append(asyncio.create_task(reporter.run())))
        server.on("worker_registered", reporter.registered)
        await server.run()


if __name__ == "__main__":
    asyncio.run(main())
