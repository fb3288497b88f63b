"""A program that refuses some rooms on purpose: `python -m tests.faults.picky`.

By its own `on_request`: `nobody-...` is refused by every agent server, `picky-...` by all but the
one in `box-1`.
"""

from __future__ import annotations

import asyncio

from livekit.agents import JobRequest

from dispatcher.observability.logs import configure
from dispatcher.settings import CommonSettings, load
from tests.faults.agents import bare_server
from worker_agent.program import rtc_session
from worker_agent.server import load_entrypoint
from worker_agent.settings import AgentSettings


async def _serve(settings: AgentSettings) -> None:
    server = bare_server(settings)
    all_but_nobody = settings.container == "box-1"

    async def on_request(request: JobRequest) -> None:
        kind = request.room.name.partition("-")[0]
        if kind == "nobody" or (kind == "picky" and not all_but_nobody):
            await request.reject(terminate=False)
        else:
            await request.accept()

    entrypoint = load_entrypoint(settings.entrypoint)
    rtc_session(server, entrypoint, agent_name=settings.agent_name, on_request=on_request)
    await server.run()


if __name__ == "__main__":
    common = load(CommonSettings)
    configure(log_format=common.log_format, level=common.log_level)
    asyncio.run(_serve(load(AgentSettings)))
