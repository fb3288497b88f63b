"""An agent program that lives as the metadata of its job says: it crashes, is slow, ends, is left.

`USHER_AGENT_ENTRYPOINT=tests.acceptance.ordinary:entrypoint`. It gives every word on `lk.chat` back
on `echo`, for as long as it answers at all.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

from livekit import rtc
from livekit.agents import Agent, AgentSession, JobContext, RoomInputOptions

CONFIDENTIAL = "customer 4711 owes 12 euros"  # what an exception's text may hold


async def entrypoint(ctx: JobContext) -> None:
    """Do as the metadata says; `once`: only in the first generation."""
    life: dict[str, Any] = json.loads(ctx.job.metadata or "{}")
    if life.get("once") and ctx.job.attributes.get("usher.generation") != "1":
        life = {}
    await asyncio.sleep(life.get("sleep_before_s", 0))
    time.sleep(life.get("block_before_s", 0))
    if life.get("raise_before"):
        raise RuntimeError(CONFIDENTIAL)
    if life.get("session"):
        await _session(ctx)
        return
    await _echo(ctx, life)
    if life.get("raise_after_s"):
        await asyncio.sleep(life["raise_after_s"])
        raise RuntimeError(CONFIDENTIAL)
    if life.get("never_returns"):
        await asyncio.Event().wait()


async def _echo(ctx: JobContext, life: dict[str, Any]) -> None:
    over = asyncio.Event()
    tasks: set[asyncio.Task[None]] = set()

    async def answer(reader: rtc.TextStreamReader, identity: str) -> None:
        word = await reader.read_all()
        if not over.is_set():
            await ctx.room.local_participant.send_text(
                word, topic="echo", destination_identities=[identity]
            )

    def on_text(reader: rtc.TextStreamReader, identity: str) -> None:
        task = asyncio.create_task(answer(reader, identity))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def on_left(_: rtc.RemoteParticipant) -> None:
        over.set()
        ctx.shutdown(reason="my person has left")

    ctx.room.register_text_stream_handler("lk.chat", on_text)
    if life.get("ends_when_left"):
        ctx.room.on("participant_disconnected", on_left)
    await ctx.connect()
    if life.get("ends_when_left"):
        await over.wait()
        await asyncio.sleep(life["ends_when_left"])  # it saves what was said


async def _session(ctx: JobContext) -> None:
    """A plain `AgentSession`: closed when its person leaves, and deaf from then on."""

    async def heard(_: AgentSession[Any], event: Any) -> None:
        await ctx.room.local_participant.send_text(
            event.text, topic="echo", destination_identities=[event.participant.identity]
        )

    await AgentSession().start(
        agent=Agent(instructions="echo"),
        room=ctx.room,
        room_input_options=RoomInputOptions(text_input_cb=heard),
    )
