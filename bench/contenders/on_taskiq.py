"""(d) The same task in a queue: taskiq with Redis.

`uvicorn bench.contenders.on_taskiq:app --workers 2` and
`taskiq worker bench.contenders.on_taskiq:broker --workers 1`
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import ListQueueBroker

from bench.contenders.endpoint import Authorized, Session, Wanted, session
from bench.contenders.task import connect, get_agent

broker = ListQueueBroker(os.environ["USHER_BENCH_TASKIQ_REDIS"])


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def open_livekit(state: TaskiqState) -> None:
    """One LiveKit client for the worker."""
    state.livekit = connect()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def close_livekit(state: TaskiqState) -> None:
    """Close its connections."""
    await state.livekit.aclose()


@broker.task
async def dispatch_agent(room: str) -> bool:
    """Bring an agent into the room."""
    return await get_agent(broker.state.livekit, room)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The web process only sends."""
    await broker.startup()
    yield
    await broker.shutdown()


app = FastAPI(lifespan=lifespan)


@app.post("/dispatches", dependencies=[Authorized])
async def dispatch(wanted: Wanted) -> Session:
    """Answer with a token at once, and queue the task."""
    await dispatch_agent.kiq(wanted.room_name)
    return session(wanted)
