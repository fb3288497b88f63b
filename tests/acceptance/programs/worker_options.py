"""A program of before `AgentServer`: `WorkerOptions` with a prewarmed process and a named agent."""

import asyncio
import os

from livekit import rtc
from livekit.agents import (
    JobContext,
    JobExecutorType,
    JobProcess,
    JobRequest,
    WorkerOptions,
    cli,
)

from worker_agent import agent_server


def prewarm(proc: JobProcess) -> None:
    """Load the phrase book once per process."""
    proc.userdata["phrases"] = {"morning": "Good morning!", "evening": "Good evening!"}


async def request(req: JobRequest) -> None:
    """Come as Iris."""
    await req.accept(name="Iris", identity=f"iris-{req.room.name}")


async def entrypoint(ctx: JobContext) -> None:
    """Answer out of the phrase book."""
    answers = set()

    async def answer(reader: rtc.TextStreamReader, identity: str) -> None:
        phrase = ctx.proc.userdata["phrases"].get(await reader.read_all(), "Pardon?")
        await ctx.room.local_participant.send_text(
            phrase, topic="lk.transcription", destination_identities=[identity]
        )

    def on_text(reader: rtc.TextStreamReader, identity: str) -> None:
        task = asyncio.create_task(answer(reader, identity))
        answers.add(task)
        task.add_done_callback(answers.discard)

    ctx.room.register_text_stream_handler("lk.chat", on_text)
    await ctx.connect()


if __name__ == "__main__":
    options = WorkerOptions(
        entrypoint_fnc=entrypoint,
        prewarm_fnc=prewarm,
        request_fnc=request,
        agent_name=os.environ["AGENT"],
        host="127.0.0.1",
        port=int(os.environ.get("PORT", "0")),
        job_executor_type=JobExecutorType(os.environ.get("EXECUTOR", "process")),
        num_idle_processes=1,
        initialize_process_timeout=60,
    )
    cli.run_app(agent_server(options))
