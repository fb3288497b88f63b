"""(e) The same task in a queue: dramatiq with Redis.

`uvicorn bench.contenders.on_dramatiq:app --workers 2` and
`dramatiq bench.contenders.on_dramatiq --processes 1 --threads 64`
"""

from __future__ import annotations

import os
from functools import cache

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import AsyncIO
from fastapi import FastAPI
from livekit import api

from bench.contenders.endpoint import Authorized, Session, Wanted, session
from bench.contenders.task import connect, get_agent

broker = RedisBroker(url=os.environ["USHER_BENCH_DRAMATIQ_REDIS"])  # type: ignore[no-untyped-call]
broker.add_middleware(AsyncIO())
dramatiq.set_broker(broker)


@cache
def livekit() -> api.LiveKitAPI:
    """One LiveKit client for the worker, made in its event loop."""
    return connect()


@dramatiq.actor(max_retries=0)  # the task has its own
async def dispatch_agent(room: str) -> None:
    """Bring an agent into the room."""
    await get_agent(livekit(), room)


app = FastAPI()


@app.post("/dispatches", dependencies=[Authorized])
def dispatch(wanted: Wanted) -> Session:
    """Answer with a token at once, and queue the task."""
    dispatch_agent.send(wanted.room_name)
    return session(wanted)
