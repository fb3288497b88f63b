"""See the processes of an agent server's jobs begin and end.

For livekit-agents 1.8 (1.8.9, ipc/proc_pool.py `ProcPool`:
https://github.com/livekit/agents/blob/main/livekit-agents/livekit/agents/ipc/proc_pool.py). It says
so at once (`process_closed`); the pool, and what a process has ended with, are private names.

Guard: with other names an agent that dies is found by the end of its lease, and the log says so.
Remove when `AgentServer` has events for its jobs.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any, Final

from livekit.agents import AgentServer
from livekit.agents.job import RunningJobInfo

from worker_agent.livekit_workarounds import unknown_release

# A process that is there for so long after it was ready has started. livekit-agents takes a second
# to see that a thread has ended.
_LASTS_S: Final = 3.0

OnDeath = Callable[[RunningJobInfo, str], None]
OnStart = Callable[[bool], None]


def watch(server: AgentServer, *, died: OnDeath, started: OnStart) -> bool:
    """Call `died` when a process ends under its job, `started` when one could start or could not.

    False, and nothing is called, with a livekit-agents that has other names.
    """
    pool = getattr(server, "_proc_pool", None)
    if pool is None or not hasattr(pool, "on"):
        unknown_release.warn("livekit-agents", "an agent that dies is found by its lease")
        return False
    lasting = {id(process) for process in getattr(pool, "processes", ())}
    loop = asyncio.get_running_loop()

    def lasts(process: Any) -> None:
        if process in getattr(pool, "processes", ()):
            lasting.add(id(process))
            started(True)

    def on_closed(process: Any) -> None:
        has_lasted = id(process) in lasting
        lasting.discard(id(process))
        info = getattr(process, "running_job", None)
        if info is not None and (how := _violent_end(process)):
            died(info, how)
        elif info is None and not has_lasted and not getattr(pool, "_closed", False):
            started(False)

    # Not at once: a thread that failed in `setup_fnc` is reported ready, and then closed.
    pool.on("process_ready", lambda process: loop.call_later(_LASTS_S, lasts, process))
    pool.on("process_closed", on_closed)
    return True


def has_warm_process(server: AgentServer) -> bool:
    """True when a process waits for a job; also where that cannot be known."""
    queue = getattr(getattr(server, "_proc_pool", None), "_warmed_proc_queue", None)
    return queue is None or not keeps_idle(server) or not queue.empty()


def keeps_idle(server: AgentServer) -> bool:
    """True when processes are started before there are jobs; false where that cannot be known."""
    pool = getattr(server, "_proc_pool", None)
    return bool(getattr(pool, "_default_num_idle_processes", 0))


def is_assigned(server: AgentServer, job_id: str) -> bool:
    """True when LiveKit has given an accepted job to this server, which starts a process for it.

    False as well where that cannot be known.
    """
    pending = getattr(server, "_pending_assignments", None)
    return pending is not None and job_id not in pending


def _violent_end(process: Any) -> str:
    """Say how a process was ended; empty for one that has ended by itself, and for a thread."""
    code = getattr(process, "exitcode", None)
    if not code:
        return ""
    if code > 0:
        return f"its process ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    by = "by its agent server (it hung, or passed its memory limit)"
    return f"its process was killed{f' {by}' if getattr(process, 'killed', False) else ''}: {name}"
