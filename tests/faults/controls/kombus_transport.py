"""Workers that take an error of Redis's for an answer, as kombu does.

`celery -A tests.faults.controls.kombus_transport worker`.
"""

from __future__ import annotations

from kombu.transport import TRANSPORT_ALIASES

from dispatcher.celery import app as app
from dispatcher.connections import celery_broker

assert all(
    celery_broker.__name__ in TRANSPORT_ALIASES[name] for name in ("redis", "rediss", "sentinel")
)
TRANSPORT_ALIASES |= {
    "redis": "kombu.transport.redis:Transport",
    "rediss": "kombu.transport.redis:Transport",
    "sentinel": "kombu.transport.redis:SentinelTransport",
}
