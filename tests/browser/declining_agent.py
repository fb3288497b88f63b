"""An agent program that declines every job: what does a session look like that is refused?"""

import os

from livekit.agents import AgentServer, JobContext, JobRequest, cli

from worker_agent import rtc_session

server = AgentServer(host="127.0.0.1", port=int(os.environ.get("USHER_DECLINING_PORT", "0")))


async def on_request(request: JobRequest) -> None:
    """No."""
    await request.reject()


@rtc_session(server, agent_name="agent-that-declines", on_request=on_request)
async def entrypoint(ctx: JobContext) -> None:
    """Never reached."""


if __name__ == "__main__":
    cli.run_app(server)
