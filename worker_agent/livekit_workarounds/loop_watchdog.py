"""Make livekit-agents' event-loop watchdog cheaper, and safe on a Python that it can stop.

For livekit-agents 1.8 (1.8.9, telemetry/loop_monitor.py, `EventLoopMonitor._sample_loop_thread` and
`_tick_interval_for`:
https://github.com/livekit/agents/blob/main/livekit-agents/livekit/agents/telemetry/loop_monitor.py).
It is a thread for each event loop, which wakes up to fifty times a second and samples the stacks of
all threads when the loop is late. Its switch, LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS, is in the
environment, which the program's own subprocesses inherit; so nothing is set there.

A sample calls `sys._current_frames()`, in which Python before 3.12 can stop for ever
(https://github.com/python/cpython/issues/106883). So no stacks are read there: a blocked loop is
reported with its task, and without the place (docs/decisions/0041-loop-watchdog.md).

Guard: with a monitor that samples in another way, the loops are not watched, and the log says so.
Remove `make_safe` when Python 3.11 is no longer supported, and `restrain` when livekit-agents has
one watchdog for all threads of a process, or a switch for its tick.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from typing import Any, Final

from livekit.agents import JobExecutorType
from livekit.agents.telemetry import loop_monitor

from worker_agent.livekit_workarounds import unknown_release

_MENDED_IN: Final = (3, 12)
_METHOD: Final = "_sample_loop_thread"
_TICK: Final = "_tick_interval_for"
# Where one process has a loop for each job. A block is measured to within a tick, so every one of
# half a second or more is reported; shorter ones are mostly the other jobs' turn with the GIL.
_THREADS_WARN_S: Final = 0.35
_THREADS_TICK_S: Final = 0.15


def make_safe() -> bool:
    """Have samples taken without the stacks of all threads; false with an unknown monitor."""
    if sys.version_info >= _MENDED_IN:
        return True
    sample = getattr(loop_monitor.EventLoopMonitor, _METHOD, None)
    if sample is sample_task:
        return True
    code = getattr(sample, "__code__", None)
    known = hasattr(loop_monitor, "_StackSample")
    if not known or code is None or "_current_frames" not in code.co_names:
        return False
    setattr(loop_monitor.EventLoopMonitor, _METHOD, sample_task)
    return True


def sample_task(monitor: Any, lag: float) -> Any:
    """Take the monitor's sample of a late loop: which task it runs."""
    task = None
    with suppress(Exception):  # as the monitor does: a task may just be ending
        task = asyncio.current_task(loop=monitor._loop)
    return loop_monitor._StackSample(
        lag=lag, task_name=None if task is None else task.get_name(), frames=[]
    )


def restrain(executor: JobExecutorType) -> None:
    """Have the watchdogs of a process with many jobs wake less often, and warn of longer blocks."""
    if not _is_safe or executor is not JobExecutorType.THREAD:
        return
    # LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS, which is livekit-agents' own switch, goes before these
    # defaults: with another threshold the tick is livekit-agents' own, too.
    loop_monitor.DEFAULT_WARN_THRESHOLD = _THREADS_WARN_S
    own = getattr(loop_monitor, _TICK, None)
    if own is None:
        unknown_release.warn("livekit-agents", "event loops' watchdogs keep its own tick")
        return
    setattr(
        loop_monitor, _TICK, lambda warn: _THREADS_TICK_S if warn == _THREADS_WARN_S else own(warn)
    )


def turn_off() -> None:
    """Leave event loops unwatched, and say so."""
    unknown_release.warn(
        "livekit-agents",
        "its samples of blocked event loops may stop this Python, so they are not watched, unless "
        f"{loop_monitor.ENV_WARN_THRESHOLD_MS} is set",
    )
    loop_monitor.DEFAULT_WARN_THRESHOLD = 0


# When imported, not when called: each job's process imports this with its entry point, before its
# loop begins, and the watchdog begins with the loop.
_is_safe = make_safe()
if not _is_safe:
    turn_off()
