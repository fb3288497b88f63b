"""An `AgentSession` without models that answers what it is written, and closes with its person."""

import os

from livekit.agents import Agent, AgentServer, AgentSession, JobContext, JobExecutorType, cli
from livekit.agents.voice.room_io import RoomOptions, TextInputEvent, TextInputOptions

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
    """Have one session with whoever comes first."""

    async def on_text(_: AgentSession, event: TextInputEvent) -> None:
        await ctx.room.local_participant.send_text(
            f"I hear you: {event.text}", topic="lk.transcription"
        )

    await AgentSession().start(
        agent=Agent(instructions="Listen."),
        room=ctx.room,
        room_options=RoomOptions(text_input=TextInputOptions(text_input_cb=on_text)),
    )


if __name__ == "__main__":
    cli.run_app(server)
