"""Celery's settings where they differ from Celery's own, and why. Connections: `REDIS_URL`."""

from __future__ import annotations

import os

from dispatcher.connections import celery_broker
from dispatcher.ledger.celery_messages import QUEUES
from dispatcher.ledger.keys import DISPATCH_QUEUE, SWEEP_QUEUE, WEBHOOK_QUEUE
from dispatcher.settings import CommonSettings, load

celery_broker.refuse_another(os.environ)
_settings = load(CommonSettings)

_broker = celery_broker.for_celery(
    _settings.redis_url.get_secret_value(), timeout_s=_settings.redis_timeout_s
)
broker_url, broker_use_ssl = _broker.url, _broker.use_ssl
# A publish must fail within a third of a second when Redis is down or hung, because a sweep makes
# many (measured: 0.3 s hung, 1 ms refused). The record is in the ledger by then, and the next sweep
# wakes a worker for it, so a lost publish costs time and nothing else.
broker_transport_options = {
    # A worker that waits for messages must notice when Redis's machine vanishes.
    **_broker.transport_options,
    "retry_on_timeout": False,
    "max_retries": 0,
    # No copy of each message in Redis until it is acknowledged (16 commands a session): the sweeper
    # repeats what a killed worker had taken, long before a visibility timeout would be over.
    "ack_emulation": False,
    # Bodies as they are, not in base64: the ledger's scripts put a session's id into them.
    "body_encoding": "utf-8",
}
broker_connection_timeout = _settings.redis_timeout_s
# A worker that starts before Redis, or loses it, retries for ever.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
task_publish_retry = False

# The ledger is the source of truth, not results. Only tasks that an operator calls keep one, so
# that the operator can read the answer.
result_backend, redis_backend_use_ssl = broker_url, broker_use_ssl
result_backend_transport_options = _broker.sentinel_options
task_ignore_result = True
# One backend object for the process; by default every thread that publishes makes its own (13 ms).
result_backend_thread_safe = True
result_expires = 3600

imports = ("dispatcher.tasks",)
task_default_queue = DISPATCH_QUEUE
task_routes = {
    # Verification waits for seconds by design; in a process of its own it never delays a dispatch.
    **{task: {"queue": queue} for task, queue in QUEUES.items()},
    # The sweep must not wait behind a long queue of the messages that it repeats: a worker takes
    # from its queues in turn.
    "dispatcher.tasks.sweep": {"queue": SWEEP_QUEUE},
    # A client's webhook receiver may be slow: deliveries never wait in front of anything else, and
    # take no more than 16 of the worker's threads.
    "dispatcher.tasks.deliver_webhook": {"queue": WEBHOOK_QUEUE},
}

# One message per free thread: a long prefetch would let messages wait behind a busy worker while
# another is idle.
worker_prefetch_multiplier = 1
worker_send_task_events = True  # Flower shows them
timezone = "UTC"  # in which Flower shows times
worker_consumer = "dispatcher.worker.consumer:Consumer"

beat_schedule = {
    # No `expires`, with which Celery would compare beat's clock with the worker's: of the sweeps
    # that pile up while the workers are away, the first is carried out, the others do nothing.
    "sweep": {"task": "dispatcher.tasks.sweep", "schedule": 0.5}
}
# The only entry is due twice a second: there is nothing to remember between restarts.
beat_scheduler = "celery.beat:Scheduler"
