"""Which event loops livekit-agents' watchdog watches for code that blocks them, and how closely.

Its watchdog is a thread for each event loop, which wakes five times in each warn threshold (never
more than fifty times a second, nor less than twenty) and samples the stacks of all threads when the
loop is late. The switch is livekit-agents' own: LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS in the program's
environment, 100 ms by default. Nothing is set in the environment here, which the program's own
subprocesses inherit.
"""

from __future__ import annotations

from typing import Final

from livekit.agents import JobExecutorType

from worker_agent.livekit_workarounds import loop_monitor

# Where one process has a loop for each job. A block is measured to within a tick, so every one of
# half a second or more is reported; shorter ones are mostly the other jobs' turn with the GIL.
_THREADS_WARN_S: Final = 0.35
_THREADS_TICK_S: Final = 0.15

# When imported, not when asked: each job's process imports this with its entry point, before its
# loop begins, and the watchdog begins with the loop.
_is_safe = loop_monitor.make_safe()
if not _is_safe:
    loop_monitor.turn_off()


def restrain(executor: JobExecutorType) -> None:
    """Have the watchdog of a process with many jobs wake less often, and warn of longer blocks."""
    if _is_safe and executor is JobExecutorType.THREAD:
        loop_monitor.watch_loosely(warn_s=_THREADS_WARN_S, tick_s=_THREADS_TICK_S)
