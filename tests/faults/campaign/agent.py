"""What does an agent of the campaign do? It joins, says so in a file of its own, and leaves.

`USHER_AGENT_ENTRYPOINT=tests.faults.campaign.agent:entrypoint`. Like livekit-agents' `AgentSession`
it ends the session when its last person has left on purpose, and stays when a person was lost.
"""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from livekit import rtc
from livekit.agents import AutoSubscribe, JobContext
from livekit.agents.job import DEFAULT_PARTICIPANT_KINDS
from livekit.agents.voice.room_io.types import DEFAULT_CLOSE_ON_DISCONNECT_REASONS

from tests.faults.campaign.journal import Journal

JOIN_LOG = "USHER_CAMPAIGN_JOIN_LOG"
LEAVES_AFTER_S = 0.5


async def entrypoint(ctx: JobContext) -> None:
    """Join the room of the job."""
    log = Journal(Path(os.environ[JOIN_LOG]))
    room = ctx.room
    leaving: list[asyncio.Task[None]] = []

    def say(event: str, **more: object) -> None:
        log.write(event, room=ctx.job.room.name, job=ctx.job.id, pid=os.getpid(), **more)

    def on_left(person: rtc.RemoteParticipant) -> None:
        if person.disconnect_reason in DEFAULT_CLOSE_ON_DISCONNECT_REASONS:
            leaving.append(asyncio.create_task(leave()))

    async def leave() -> None:
        await asyncio.sleep(LEAVES_AFTER_S)
        people = [
            p for p in room.remote_participants.values() if p.kind in DEFAULT_PARTICIPANT_KINDS
        ]
        if not people:
            ctx.shutdown(reason="the last person has left")

    async def on_shutdown(reason: str) -> None:
        say("agent_left", why=reason)

    room.on("participant_disconnected", on_left)
    room.on("reconnecting", lambda: say("agent_reconnecting"))
    room.on("reconnected", lambda: say("agent_reconnected"))
    room.on("disconnected", lambda reason: say("agent_disconnected", why=int(reason)))
    ctx.add_shutdown_callback(on_shutdown)
    # Before it connects: one that is killed right after joining has left its process behind.
    say("agent_starts", agent=ctx.local_participant_identity)
    await ctx.connect(auto_subscribe=AutoSubscribe.SUBSCRIBE_NONE)
    say("agent_joined")
