"""(c) The web process itself dispatches the agent, after the answer: FastAPI's BackgroundTasks.

`uvicorn bench.contenders.background_tasks:app --workers 2`
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import BackgroundTasks, FastAPI

from bench.contenders.endpoint import Authorized, Session, Wanted, session
from bench.contenders.task import connect, get_agent


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One LiveKit client for the process."""
    async with connect() as app.state.livekit:
        yield


app = FastAPI(lifespan=lifespan)


@app.post("/dispatches", dependencies=[Authorized])
async def dispatch(wanted: Wanted, background: BackgroundTasks) -> Session:
    """Answer with a token at once, and dispatch the agent after the answer."""
    background.add_task(get_agent, app.state.livekit, wanted.room_name)
    return session(wanted)
