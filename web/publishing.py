"""When does the dispatcher hear of a new dispatch?

Once nobody waits for an answer of this process any more, or 50 ms later at the most: on a machine
that the web shares with the workers, what a wake-up sets in motion would slow the answers down.
The record alone is the promise. A wake-up that is lost with its process costs two seconds, after
which the sweeper finds the record.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Final

from kombu.exceptions import OperationalError

from dispatcher.waking import wake_dispatch
from web.schemas import Accepted

logger = logging.getLogger(__name__)

MAX_DELAY_S: Final = 0.05


class Publisher:
    """Publishes wake-ups from a thread of its own; one per process."""

    def __init__(self) -> None:
        self._queue: deque[tuple[float, Accepted]] = deque()
        self._answering = 0
        self._news = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @contextlib.contextmanager
    def answering(self) -> Iterator[None]:
        """Somebody waits for an answer during this block."""
        with self._news:
            self._answering += 1
        try:
            yield
        finally:
            with self._news:
                self._answering -= 1
                self._news.notify_all()

    def put(self, accepted: Accepted) -> None:
        """Have the dispatcher woken soon."""
        with self._news:
            self._queue.append((time.monotonic() + MAX_DELAY_S, accepted))
            self._news.notify_all()

    def close(self) -> None:
        """Publish what is left."""
        with self._news:
            self._closing = True
            self._news.notify_all()
        self._thread.join(timeout=2)

    def _next(self) -> Accepted | None:
        """The oldest, as soon as it may go; None when all is done."""
        with self._news:
            while True:
                if not self._queue:
                    if self._closing:
                        return None
                    self._news.wait()
                    continue
                latest, accepted = self._queue[0]
                pause_s = latest - time.monotonic()
                if self._answering == 0 or pause_s <= 0 or self._closing:
                    self._queue.popleft()
                    return accepted
                self._news.wait(pause_s)

    def _run(self) -> None:
        while (accepted := self._next()) is not None:
            logger.info(
                "dispatch accepted",
                extra={
                    "dispatch_id": accepted.dispatch_id,
                    "client_id": accepted.client_id,
                    "room": accepted.room_name,
                    "agent_name": accepted.agent_name,
                },
            )
            try:
                wake_dispatch(accepted.dispatch_id, accepted.room_name)
            except OperationalError as error:
                logger.warning(
                    "wake-up not published",
                    extra={"dispatch_id": accepted.dispatch_id, "error": type(error).__name__},
                )
