"""Learn at once that a job's shutdown begins, and whether the program has asked for it.

For livekit-agents 1.8 (1.8.9, ipc/job_proc_lazy_main.py `_JobProc`:
https://github.com/livekit/agents/blob/main/livekit-agents/livekit/agents/ipc/job_proc_lazy_main.py).
It calls a program's shutdown callbacks after it has waited for the entry point, the `AgentSession`
and `on_session_end`, up to 375 s, with the agent in the room all the time. The moment, and who
asked, are in its `_shutdown_fut`.

Guard: with other names the end of a job is known by the shutdown callbacks, and the log says so.
Remove when `JobContext` has an event for the beginning of a shutdown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from livekit.agents import JobContext

from worker_agent.livekit_workarounds import unknown_release

OnShutdown = Callable[[str, bool], None]


def on_beginning(ctx: JobContext, told: OnShutdown) -> None:
    """Have `told(reason, asked_for_by_the_program)` called in the job's loop, once.

    With a livekit-agents that has other names nothing is called.
    """
    future = _shutdown_future(ctx)
    if future is None:
        unknown_release.warn(
            "livekit-agents", "the end of a job is reported when its agent has left the room"
        )
        return

    def done(finished: asyncio.Future[Any]) -> None:
        if not finished.cancelled():
            info = finished.result()
            told(str(info.reason), bool(info.user_initiated))

    future.add_done_callback(done)


def _shutdown_future(ctx: JobContext) -> asyncio.Future[Any] | None:
    """The future of the job's process object, which `ctx.shutdown()` resolves in its closure."""
    for cell in getattr(getattr(ctx, "_on_shutdown", None), "__closure__", None) or ():
        found = getattr(cell.cell_contents, "_shutdown_fut", None)
        if isinstance(found, asyncio.Future):
            return found
    return None
