"""An agent whose `on_request` answers as the dispatch's metadata says.

`never` is rejected for good, `elsewhere` is left to other agent servers, `second time` as well when
it is asked for the first time. Each question is a line in the file of ASKED_FILE: the room's name.
"""

import os
from collections import Counter
from pathlib import Path

from livekit.agents import AgentServer, JobContext, JobExecutorType, JobRequest, cli

from worker_agent import rtc_session

server = AgentServer(
    host="127.0.0.1",
    port=int(os.environ.get("PORT", "0")),
    job_executor_type=JobExecutorType(os.environ.get("EXECUTOR", "process")),
    num_idle_processes=1,
    initialize_process_timeout=60,
)
asked: Counter[str] = Counter()


async def on_request(req: JobRequest) -> None:
    """Take what this agent likes."""
    asked[req.room.name] += 1
    with Path(os.environ["ASKED_FILE"]).open("a") as file:
        file.write(f"{req.room.name}\n")
    wish = req.job.metadata
    if wish == "never":
        await req.reject()
    elif wish == "elsewhere" or (wish == "second time" and asked[req.room.name] < 2):
        await req.reject(terminate=False)
    else:
        await req.accept()


@rtc_session(server, agent_name=os.environ["AGENT"], on_request=on_request)
async def entrypoint(ctx: JobContext) -> None:
    """Be there."""
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
