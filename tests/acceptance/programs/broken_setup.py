"""A program whose `setup_fnc` raises, as one does whose model file is missing."""

import os

from livekit.agents import AgentServer, JobContext, JobExecutorType, JobProcess, cli

from worker_agent import rtc_session

server = AgentServer(
    host="127.0.0.1",
    port=int(os.environ.get("PORT", "0")),
    job_executor_type=JobExecutorType(os.environ.get("EXECUTOR", "process")),
    num_idle_processes=1,
)


def setup(proc: JobProcess) -> None:
    """Load a model that is not there."""
    raise FileNotFoundError("no model here")


server.setup_fnc = setup


@rtc_session(server, agent_name=os.environ["AGENT"])
async def entrypoint(ctx: JobContext) -> None:
    """Never reached."""
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
