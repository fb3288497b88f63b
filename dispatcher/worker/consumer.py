"""Celery's consumer, with fewer events and fewer attempts at a Redis that refuses to work."""

from __future__ import annotations

import time
import warnings
from typing import Any, Final

from celery.exceptions import CPendingDeprecationWarning
from celery.worker import consumer

from dispatcher.connections.celery_broker import RETRY_S
from dispatcher.connections.redis_errors import Refused

# Flower shows events so much later.
FLUSH_AFTER_S: Final = 0.5


class Consumer(consumer.Consumer):
    """Celery's consumer, which publishes its tasks' events in batches, twice a second.

    By itself Celery publishes them nearly one by one: a quarter of what Python did in a worker that
    dispatches (py-spy).
    """

    # Celery's attributes, which celery-types does not know.
    hub: Any
    event_dispatcher: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._flush_is_due = False

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Handle a lost connection; Celery calls this before it reconnects."""
        with warnings.catch_warnings():
            # The warning recommends a setting that would end tasks; it is off on purpose.
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)
        if isinstance(exc, Refused):
            time.sleep(RETRY_S)  # Celery by itself retries five times without a pause

    def on_send_event_buffered(self) -> Any:
        """Schedule a flush; Celery calls this for every event, also from threads of the pool."""
        return None if self._flush_is_due else self.hub.call_soon(self._flush_later)

    def _flush_later(self) -> None:
        if not self._flush_is_due:
            self._flush_is_due = True
            self.timer.call_after(FLUSH_AFTER_S, self._flush)

    def _flush(self) -> None:
        # Before the flush, so that an event which comes now is flushed now or schedules another.
        self._flush_is_due = False
        if self.event_dispatcher:
            self.event_dispatcher.flush()

    def stop(self) -> None:
        """Flush the last events; Celery calls this when the worker ends."""
        self._flush()
        super().stop()
