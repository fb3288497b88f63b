"""When does the dispatcher hear of a new dispatch, and the log?

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
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from kombu.exceptions import OperationalError

from dispatcher import tracing
from dispatcher.waking import wake_dispatch
from web.schemas import Accepted

logger = logging.getLogger(__name__)

MAX_DELAY_S: Final = 0.05


class Publisher:
    """Publishes wake-ups, and does what else can wait, in a thread of its own; one per process."""

    def __init__(self) -> None:
        self._queue: deque[tuple[float, Callable[[], None]]] = deque()
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

    def wake(self, accepted: Accepted) -> None:
        """Have the dispatcher woken soon."""
        self.soon(partial(_wake, accepted))

    def soon(self, work: Callable[[], None]) -> None:
        """Have `work` done when nobody waits for an answer; it must not raise."""
        with self._news:
            self._queue.append((time.monotonic() + MAX_DELAY_S, work))
            self._news.notify_all()

    def close(self) -> None:
        """Publish what is left."""
        with self._news:
            self._closing = True
            self._news.notify_all()
        self._thread.join(timeout=2)

    def _next(self) -> Callable[[], None] | None:
        """The oldest, as soon as it may go; None when all is done."""
        with self._news:
            while True:
                if not self._queue:
                    if self._closing:
                        return None
                    self._news.wait()
                    continue
                latest, work = self._queue[0]
                pause_s = latest - time.monotonic()
                if self._answering == 0 or pause_s <= 0 or self._closing:
                    self._queue.popleft()
                    return work
                self._news.wait(pause_s)

    def _run(self) -> None:
        while (work := self._next()) is not None:
            work()


def _wake(accepted: Accepted) -> None:
    attributes: dict[str, tracing.Value] = {
        "messaging.system": "celery",
        "messaging.operation.type": "send",
        "messaging.operation.name": "send",
        "messaging.destination.name": "dispatch_agent",
        "usher.dispatch_id": accepted.dispatch_id,
    }
    try:
        with tracing.span(
            "send dispatch_agent",
            parent=accepted.traceparent,
            kind="producer",
            attributes=attributes,
        ):
            wake_dispatch(accepted.dispatch_id, accepted.room_name)
    except OperationalError as error:
        logger.warning(
            "wake-up not published",
            extra={"dispatch_id": accepted.dispatch_id, "error": type(error).__name__},
        )
