"""Prepare a job's process before there is a job.

That is a process which waits for one (livekit-agents' `setup_fnc`) or, with the thread executor,
the agent server itself. What could not be prepared is done by the job, later and slower.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final, TypeVar

from livekit.agents import JobProcess

from dispatcher import start_up
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.step import Step
from dispatcher.settings import CommonSettings, load
from worker_agent.livekit_workarounds import native_client

T = TypeVar("T")

_CONNECTIONS: Final = 2

_lock = threading.Lock()
_lines = threading.BoundedSemaphore(_CONNECTIONS)
_done = False


def set_up(own: Callable[[JobProcess], Any] | None, process: JobProcess) -> Any:
    """Prepare a process, and then call the program's own `setup_fnc`, if it has one."""
    prepare()
    return None if own is None else own(process)


def prepare() -> None:
    """Make the native client and a connection to Redis, unless this process has them already."""
    global _done
    with _lock:
        if _done:
            return
        _done = True
        native_client.make()
        with contextlib.suppress(ConfigurationError, LedgerUnavailable):
            _ledger().warm_up(_CONNECTIONS)
        start_up.freeze()


def ask(step: Step[T]) -> T:
    """Carry out `step` over one of the connections that this process has open.

    A job's own would take 4 ms of its join to open; in a burst those in line wait for one of these.

    Raises:
        ConfigurationError: a setting is missing or wrong.
        LedgerUnavailable: Redis did not answer.
    """
    with _lines:
        return _ledger().run(step)


@lru_cache(maxsize=1)
def _ledger() -> Ledger:
    common = load(CommonSettings)
    # The time-out of a background process: no caller waits for an answer here.
    return Ledger(common.model_copy(update={"redis_timeout_s": common.redis_worker_timeout_s}))
