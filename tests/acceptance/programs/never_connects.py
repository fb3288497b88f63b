"""A program whose author has forgotten `ctx.connect()`: its entry point returns at once."""

import os

from livekit.agents import AgentServer, JobContext, JobExecutorType, cli

from worker_agent import rtc_session

server = AgentServer(
    host="127.0.0.1",
    port=int(os.environ.get("PORT", "0")),
    job_executor_type=JobExecutorType(os.environ.get("EXECUTOR", "process")),
    num_idle_processes=1,
    initialize_process_timeout=60,
)


@rtc_session(server, agent_name=os.environ["AGENT"])
async def entrypoint(ctx: JobContext) -> None:
    """Do nothing."""


if __name__ == "__main__":
    cli.run_app(server)
