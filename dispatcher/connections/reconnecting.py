"""Celery's connection to its broker, retried every second.

By itself kombu (5.6) waits 2 s, 4 s, and so on up to 30 s between two tries
(`kombu.Connection.ensure_connection`), so that a worker or beat may notice the return of Redis half
a minute late, and a session's deadline is 20 s.
"""

from __future__ import annotations

from typing import Any, Final

import kombu
from celery.app import amqp

RETRY_S: Final = 1.0


class BrokerConnection(kombu.Connection):
    """kombu's connection, with the same short pause between all tries."""

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        """Connect, with any number of tries. Celery's consumer and beat call it."""
        pauses = {"interval_start": RETRY_S, "interval_step": 0, "interval_max": RETRY_S}
        return super().ensure_connection(*args, **pauses | options)


class AMQP(amqp.AMQP):
    """Celery's AMQP, with `BrokerConnection`."""

    Connection = BrokerConnection
