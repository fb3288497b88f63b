"""Who watches a job's event loop for code that blocks it? livekit-agents, where that does no harm.

Its watchdog is a thread for each event loop, which wakes fifty times a second and reads the stacks
of all threads when the loop is late.
"""

from __future__ import annotations

import os
import sys
from typing import Final

from livekit.agents import JobExecutorType
from livekit.agents.telemetry.loop_monitor import ENV_WARN_THRESHOLD_MS

# Before it, a garbage collection inside `sys._current_frames()` may wait for the GIL with a lock
# that a thread which begins or ends wants with the GIL: the process stands still
# (https://github.com/python/cpython/issues/106883). livekit-rtc's callbacks begin and end one each.
_MENDED_IN: Final = (3, 12)


def restrain(executor: JobExecutorType) -> None:
    """Turn the watchdog off where it may stop the process, or there is one for each job in it.

    Off is for this process and those that it starts, and unless the program's environment has
    LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS, which is livekit-agents' own switch.
    """
    if sys.version_info < _MENDED_IN or executor is JobExecutorType.THREAD:
        os.environ.setdefault(ENV_WARN_THRESHOLD_MS, "0")
