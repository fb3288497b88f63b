"""A greeter whose entry point is a function with its configuration bound by `functools.partial`."""

import asyncio
import functools
import os
from dataclasses import dataclass

from livekit import rtc
from livekit.agents import AgentServer, JobContext, JobExecutorType, cli

from worker_agent import rtc_session


@dataclass(frozen=True)
class Config:
    """What makes one greeter another than the next."""

    greeting: str
    mark: str = "!"


server = AgentServer(
    host="127.0.0.1",
    port=int(os.environ.get("PORT", "0")),
    job_executor_type=JobExecutorType(os.environ.get("EXECUTOR", "process")),
    num_idle_processes=1,
    initialize_process_timeout=60,
)


async def greeter(config: Config, ctx: JobContext) -> None:
    """Answer each text of the chat to the one who has sent it."""
    answers = set()

    async def answer(reader: rtc.TextStreamReader, identity: str) -> None:
        name = await reader.read_all()
        await ctx.room.local_participant.send_text(
            f"{config.greeting}, {name}{config.mark}",
            topic="lk.transcription",
            destination_identities=[identity],
        )

    def on_text(reader: rtc.TextStreamReader, identity: str) -> None:
        task = asyncio.create_task(answer(reader, identity))
        answers.add(task)
        task.add_done_callback(answers.discard)

    ctx.room.register_text_stream_handler("lk.chat", on_text)
    await ctx.connect()


rtc_session(
    server,
    functools.partial(greeter, Config(greeting="Good day")),
    agent_name=os.environ["AGENT"],
)

if __name__ == "__main__":
    cli.run_app(server)
