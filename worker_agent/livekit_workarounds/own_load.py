"""See how many jobs livekit-agents accepts by a program's own load report, and have LiveKit know.

For livekit-agents 1.8 (1.8.9, worker.py `AgentServer._get_effective_load`, `_is_available`,
`_update_worker_status`:
https://github.com/livekit/agents/blob/main/livekit-agents/livekit/agents/worker.py). The load that
it has measured, what it adds for jobs that are starting and what it has told LiveKit last are
private.

Guard: with other names Usher sends as many sessions as there are free slots, and LiveKit learns of
a free one by livekit-agents' own report, every 2.5 s.
Remove when `AgentServer` says how many jobs it would accept, and reports a change at once.
"""

from __future__ import annotations

import math

from livekit.agents import AgentServer
from livekit.agents.worker import ServerEnvOption
from livekit.protocol.agent import WorkerStatus

from worker_agent.livekit_workarounds import unknown_release

_ROUNDING = 1e-6


def accepts(server: AgentServer) -> int | None:
    """Return how many jobs livekit-agents accepts now; None: any number, or not known.

    It takes a job to weigh as much as those that run do on average, and the first one as much as
    the threshold over its idle processes. A job that it does not accept LiveKit drops. It tells
    LiveKit only every 2.5 s whether it is full, and a full one is asked nothing.
    """
    try:
        threshold = ServerEnvOption.getvalue(server._load_threshold, server._devmode)
        if math.isinf(threshold):
            return None
        left = threshold - server._get_effective_load()
        if server._previous_status == WorkerStatus.WS_FULL or left <= 0:
            return 0
        idle = ServerEnvOption.getvalue(server._num_idle_processes, server._devmode)
        jobs = len(server.active_jobs)
        each = server._worker_load / jobs if jobs else threshold / max(idle, 1)
    except AttributeError:
        message = "its load_threshold may refuse sessions that Usher sends"
        unknown_release.warn("livekit-agents", message)
        return None
    return math.ceil(left / each - _ROUNDING) if each > 0 else None


async def tell_that_it_is_free(server: AgentServer) -> None:
    """Tell LiveKit at once that a full agent server is so no longer, and not within 2.5 s."""
    try:
        was_full = server._previous_status == WorkerStatus.WS_FULL
        is_free = was_full and server._is_available() and not server._connecting
        update = server._update_worker_status
    except AttributeError:
        message = "LiveKit learns up to 2.5 s late that a server is free"
        unknown_release.warn("livekit-agents", message)
        return
    if is_free:
        await update()
