"""An ordinary livekit-agents program with the two lines that make it one of Usher's.

`pip install "usher[agent]"` (in Usher's folder `pip install ".[agent]"`), set REDIS_URL and
LIVEKIT_*, and start it as ever: `python examples/agent.py start`.
"""

import os

from livekit import rtc
from livekit.agents import AgentServer, JobContext, cli

from worker_agent import rtc_session

server = AgentServer(host="127.0.0.1", port=int(os.environ.get("PORT", "8081")))


@rtc_session(server, agent_name="session-agent-rag")
async def entrypoint(ctx: JobContext) -> None:
    """Greet each person who comes."""
    await ctx.connect()

    async def greet(ctx: JobContext, person: rtc.RemoteParticipant) -> None:
        await ctx.room.local_participant.send_text(
            f"Hello, {person.identity}!", topic="lk.transcription"
        )

    ctx.add_participant_entrypoint(greet)


if __name__ == "__main__":
    cli.run_app(server)
