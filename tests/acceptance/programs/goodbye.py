"""An agent that ends its job when it is told "bye", and then takes 3 s to file its notes.

The notes are a line in the file of NOTES_FILE: the id of the job.
"""

import asyncio
import os
from pathlib import Path

from livekit import rtc
from livekit.agents import AgentServer, JobContext, JobExecutorType, cli

from worker_agent import rtc_session

FILING_S = 3

server = AgentServer(
    host="127.0.0.1",
    port=int(os.environ.get("PORT", "0")),
    job_executor_type=JobExecutorType(os.environ.get("EXECUTOR", "process")),
    num_idle_processes=1,
    initialize_process_timeout=60,
)


async def on_session_end(ctx: JobContext) -> None:
    """File the notes of the talk."""
    await asyncio.sleep(FILING_S)
    with Path(os.environ["NOTES_FILE"]).open("a") as file:
        file.write(f"{ctx.job.id}\n")


@rtc_session(server, agent_name=os.environ["AGENT"], on_session_end=on_session_end)
async def entrypoint(ctx: JobContext) -> None:
    """Talk until the person says bye."""
    answers = set()

    async def answer(reader: rtc.TextStreamReader, identity: str) -> None:
        text = await reader.read_all()
        if text == "bye":
            ctx.shutdown(reason="done talking")
            return
        await ctx.room.local_participant.send_text(
            f"You said: {text}", topic="lk.transcription", destination_identities=[identity]
        )

    def on_text(reader: rtc.TextStreamReader, identity: str) -> None:
        task = asyncio.create_task(answer(reader, identity))
        answers.add(task)
        task.add_done_callback(answers.discard)

    ctx.room.register_text_stream_handler("lk.chat", on_text)
    await ctx.connect()


if __name__ == "__main__":
    cli.run_app(server)
