"""The agent server of the contenders: `python -m bench.agent plain|usher slots|cpu PORT`.

It is the same for all of them: the same entry point, executor, idle processes and slots. `plain`
is livekit-agents as it stands; `usher` has Usher's `rtc_session` in place of livekit-agents'.

`slots` reports used slots / slots as the load, scaled below LiveKit's target load, because with
livekit-agents' own (`cpu`) LiveKit drops jobs of a burst with every contender.
"""

from __future__ import annotations

import asyncio
import math
import sys
from pkgutil import resolve_name

from livekit.agents import AgentServer, JobExecutorType
from livekit.rtc._ffi_client import FfiClient

from bench.contenders import AGENT_NAME
from dispatcher.observability.logs import configure
from dispatcher.settings import load
from worker_agent.livekit_workarounds.loop_watchdog import restrain
from worker_agent.load_report import livekit_load
from worker_agent.program import rtc_session
from worker_agent.settings import AgentSettings


def build(variant: str, load_report: str, port: int, settings: AgentSettings) -> AgentServer:
    """Make the agent server `variant` with that load report and port of its health endpoint."""
    entrypoint = resolve_name(settings.entrypoint)

    def used_slots(server: AgentServer) -> float:
        return livekit_load(used_slots=len(server.active_jobs), slots=settings.slots)

    server = AgentServer(
        ws_url=settings.livekit_url,
        api_key=settings.livekit_api_key,
        api_secret=settings.livekit_api_secret.get_secret_value(),
        job_executor_type=JobExecutorType(settings.executor),
        num_idle_processes=settings.idle_processes,
        host=settings.host,
        port=port,
        preload_modules=["worker_agent.program", settings.entrypoint.partition(":")[0]],
    )
    if variant == "usher":
        rtc_session(server, entrypoint, agent_name=AGENT_NAME, own_load=load_report == "cpu")
    else:
        if load_report == "slots":
            server.load_fnc = used_slots
            server.update_options(load_threshold=math.inf)
        server.rtc_session(entrypoint, agent_name="bench-plain")
        # Usher's rtc_session does both: without them a burst hangs the process (two jobs' threads
        # make the native client; a watchdog reads stacks), and what is compared is dispatching.
        restrain(JobExecutorType(settings.executor))
        if settings.executor == "thread":
            _ = FfiClient.instance
    return server


if __name__ == "__main__":
    configure(log_format="json", level="INFO")  # as in production
    variant, load_report, port = sys.argv[1:]
    asyncio.run(build(variant, load_report, int(port), load(AgentSettings)).run())
