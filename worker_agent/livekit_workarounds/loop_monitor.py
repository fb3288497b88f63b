"""livekit-agents' event-loop monitor, safe on a Python that its samples can stop, and cheaper.

For livekit-agents 1.8 (telemetry/loop_monitor.py, `EventLoopMonitor._sample_loop_thread` and
`_tick_interval_for`:
https://github.com/livekit/agents/blob/main/livekit-agents/livekit/agents/telemetry/loop_monitor.py).

When a loop is late, its watchdog thread calls `sys._current_frames()`. Python before 3.12 makes
objects there with the lock of the list of threads held. When that sets off a garbage collection
which lets go of the GIL or frees a `threading.local`, every thread that begins or ends waits for
that lock for ever, with the GIL (https://github.com/python/cpython/issues/106883). The mend that
was proposed for 3.11, no collection meanwhile, is what is done here
(https://github.com/python/cpython/pull/117332).

Remove `make_safe` when Python 3.11 is no longer supported, and `watch_loosely` when livekit-agents
has one watchdog for all threads of a process, or a switch for its tick.
"""

from __future__ import annotations

import functools
import gc
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from livekit.agents.telemetry import loop_monitor
from livekit.agents.version import __version__

logger = logging.getLogger(__name__)

_MENDED_IN: Final = (3, 12)
_METHOD: Final = "_sample_loop_thread"
_TICK: Final = "_tick_interval_for"
# One watchdog at a time: with the thread executor each job has one, and the first to be done would
# turn collections on again under the others.
_sampling = threading.Lock()


def make_safe() -> bool:
    """Have the monitor's samples taken without a garbage collection; false where it cannot be.

    Then the monitor is another than the one that this was written for, and samples elsewhere.
    """
    if sys.version_info >= _MENDED_IN:
        return True
    sample = getattr(loop_monitor.EventLoopMonitor, _METHOD, None)
    if getattr(sample, "_collects_no_garbage", False):
        return True
    code = getattr(sample, "__code__", None)
    if sample is None or code is None or "_current_frames" not in code.co_names:
        return False
    setattr(loop_monitor.EventLoopMonitor, _METHOD, _without_collection(sample))
    return True


def watch_loosely(*, warn_s: float, tick_s: float) -> None:
    """Set the monitor's defaults, in this process and no other.

    LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS, which is livekit-agents' own switch, goes before them: with
    another threshold the tick is livekit-agents' own, too.
    """
    loop_monitor.DEFAULT_WARN_THRESHOLD = warn_s
    own = getattr(loop_monitor, _TICK, None)
    if own is None:
        logger.warning("livekit-agents %s: event loops' watchdogs keep its own tick", __version__)
        return
    setattr(loop_monitor, _TICK, lambda warn: tick_s if warn == warn_s else own(warn))


def turn_off() -> None:
    """Leave event loops unwatched, and say so."""
    logger.warning(
        "livekit-agents %s samples blocked event loops in a way that can stop Python %s: they are "
        "not watched, unless %s is set",
        __version__,
        sys.version.split()[0],
        loop_monitor.ENV_WARN_THRESHOLD_MS,
    )
    loop_monitor.DEFAULT_WARN_THRESHOLD = 0


def _without_collection(sample: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(sample)
    def sample_without_collection(*args: Any, **kwargs: Any) -> Any:
        with _no_collection():
            return sample(*args, **kwargs)

    sample_without_collection._collects_no_garbage = True  # type: ignore[attr-defined]
    return sample_without_collection


@contextmanager
def _no_collection() -> Iterator[None]:
    with _sampling:
        collects = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if collects:
                gc.enable()
