"""Celery's consumer, with fewer events and fewer attempts at a Redis that refuses to work."""

from __future__ import annotations

import time
import warnings
from typing import Any, Final

from celery.exceptions import CPendingDeprecationWarning
from celery.worker import consumer

from dispatcher.connections.reconnecting import RETRY_S
from dispatcher.connections.redis_errors import Refused

# Flower shows it so much later.
TOLD_AFTER_S: Final = 0.1


class Consumer(consumer.Consumer):
    """Celery's own, which tells what its tasks do ten times a second, and not each thing by itself.

    Each turn of Celery's loop publishes the events that have come since the one before: nearly one
    by one, and they took a quarter of what Python did in a worker that dispatches (py-spy).
    """

    # Celery's, which celery-types does not know.
    hub: Any
    event_dispatcher: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._to_be_told = False

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Called by Celery when the connection is lost, before it makes another one."""
        with warnings.catch_warnings():
            # Each time it recommends a setting that would end tasks; here it is off on purpose.
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)
        if isinstance(exc, Refused):
            time.sleep(RETRY_S)  # Celery by itself tries five times at once

    def on_send_event_buffered(self) -> Any:
        """Called by Celery for every event, by a thread of the pool too."""
        return None if self._to_be_told else self.hub.call_soon(self._tell_later)

    def _tell_later(self) -> None:
        if not self._to_be_told:
            self._to_be_told = True
            self.timer.call_after(TOLD_AFTER_S, self._tell)

    def _tell(self) -> None:
        # First, so that an event which comes now is either told now or asks again.
        self._to_be_told = False
        if self.event_dispatcher:
            self.event_dispatcher.flush()

    def stop(self) -> None:
        """Called by Celery when the worker ends."""
        self._tell()
        super().stop()
