"""An agent that answers a remote procedure call, and whose entry point never returns."""

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


@rtc_session(server, agent_name=os.environ["AGENT"])
async def entrypoint(ctx: JobContext) -> None:
    """Greet those who call, and send them what this job was dispatched with."""
    await ctx.connect()
    me = ctx.room.local_participant

    async def greet(call: rtc.RpcInvocationData) -> str:
        await me.send_text(
            f"metadata {ctx.job.metadata!r}",
            topic="lk.transcription",
            destination_identities=[call.caller_identity],
        )
        return f"Hello, {call.payload}!"

    me.register_rpc_method("greet", greet)
    await asyncio.Event().wait()


if __name__ == "__main__":
    cli.run_app(server)
