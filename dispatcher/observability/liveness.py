"""A liveness file for probes, touched every two seconds while the process does its work.

Each process has its own (`USHER_ALIVE_FILE`), and judges its work from inside: a worker whose event
loop hangs, or that takes no messages though Redis is there, lets its file grow old. A Redis that is
away does not count: a restart of the process would not help. Why a file:
`docs/decisions/0057-probes-ask-a-file.md`.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from dispatcher.errors import ConfigurationError

logger = logging.getLogger(__name__)

PERIOD_S: Final = 2.0
# Celery's own heartbeats come every two seconds, and a worker that has lost Redis takes messages
# again within seconds of Redis's return.
QUIET_S: Final = 30.0


def check(path: str) -> None:
    """Check that the liveness file can be written, if one is wanted.

    Raises:
        ConfigurationError: it cannot be written, so every probe would fail.
    """
    folder = Path(path).parent
    if path and (Path(path).is_dir() or not os.access(folder, os.W_OK | os.X_OK)):
        raise ConfigurationError(
            "Usher cannot start, USHER_ALIVE_FILE cannot be written: name a file in a folder that "
            "is there and that this process may write to"
        )


class AliveFile:
    """The liveness file of this process; with an empty path there is none."""

    def __init__(self, path: str) -> None:
        self._path = Path(path) if path else None

    def touch(self) -> None:
        """Touch the file: this process does its work now."""
        if self._path is None:
            return
        try:
            self._path.touch()
        except OSError as error:
            logger.error("cannot touch USHER_ALIVE_FILE", extra={"error": error.strerror})
            self._path = None  # log it once


class Pulse:
    """The time when Celery's own loop, which takes or sends messages, was last seen at work."""

    def __init__(self, quiet_s: float = QUIET_S) -> None:
        self._quiet_s = quiet_s
        self._felt_at = time.monotonic()

    def feel(self, *_: Any, **__: Any) -> None:
        """Note that the loop is at work; a receiver for Celery's signals."""
        self._felt_at = time.monotonic()

    @property
    def quiet(self) -> bool:
        """True when the loop has been silent for longer than it can be while Redis answers."""
        return time.monotonic() - self._felt_at > self._quiet_s


def watch(
    file: AliveFile,
    pulse: Pulse,
    redis_answers: Callable[[], bool],
    *,
    period_s: float = PERIOD_S,
) -> None:
    """Touch the file from a thread for as long as there is a pulse, or Redis is away."""

    def run() -> None:
        while True:
            try:
                if not pulse.quiet or not redis_answers():
                    file.touch()
            except Exception:  # if this thread ended, beat would be restarted again and again
                logger.exception("cannot tell whether beat is at work")
            time.sleep(period_s)

    threading.Thread(target=run, name="alive", daemon=True).start()
