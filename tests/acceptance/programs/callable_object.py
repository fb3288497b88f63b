"""A counter of letters whose entry point is an object with an async `__call__`."""

import asyncio
import os

from livekit import rtc
from livekit.agents import AgentServer, JobContext, JobExecutorType, cli

from worker_agent import rtc_session

server = AgentServer(
    host="127.0.0.1",
    port=int(os.environ.get("PORT", "0")),
    job_executor_type=JobExecutorType(os.environ.get("EXECUTOR", "process")),
    num_idle_processes=1,
    initialize_process_timeout=60,
)


class LetterCounter:
    """An agent that says how long a text is."""

    def __init__(self, unit: str) -> None:
        self.unit = unit

    async def __call__(self, ctx: JobContext) -> None:
        """Answer each text of the chat until the job ends."""
        texts: asyncio.Queue[tuple[rtc.TextStreamReader, str]] = asyncio.Queue()
        ctx.room.register_text_stream_handler(
            "lk.chat", lambda reader, identity: texts.put_nowait((reader, identity))
        )
        await ctx.connect()
        answering = asyncio.create_task(self.answer(ctx.room, texts))

        async def stop() -> None:
            answering.cancel()

        ctx.add_shutdown_callback(stop)

    async def answer(
        self, room: rtc.Room, texts: "asyncio.Queue[tuple[rtc.TextStreamReader, str]]"
    ) -> None:
        """Answer one text after the other."""
        while True:
            reader, identity = await texts.get()
            text = await reader.read_all()
            await room.local_participant.send_text(
                f"{text}: {len(text)} {self.unit}",
                topic="lk.transcription",
                destination_identities=[identity],
            )


rtc_session(server, LetterCounter("letters"), agent_name=os.environ["AGENT"])

if __name__ == "__main__":
    cli.run_app(server)
