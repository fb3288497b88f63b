"""How is a worker told to look at a dispatch?

By task name, so that whoever wakes (web, sweeper, CLI) need not import what the tasks import.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from dispatcher.celery import app
from dispatcher.messages import CLEAR_TASK, DISPATCH_TASK, SUPERVISE_TASK, VERIFY_TASK

DELIVER_TASK = "dispatcher.tasks.deliver_webhook"
REDISPATCH_JOINED_TASK = "dispatcher.tasks.redispatch_joined"


def warm_up() -> None:
    """Open every publishing connection and load what the first publish would load.

    Raises like `wake_dispatch`.
    """
    with ExitStack() as stack:
        for _ in range(app.conf.broker_pool_limit):
            producer = stack.enter_context(app.producer_or_acquire())
            producer.connection.ensure_connection(max_retries=1)
            try:
                producer.maybe_declare(app.amqp.queues[app.conf.task_default_queue])
            except (*producer.connection.connection_errors, RedisError) as error:
                # Redis's own, as it is, where it falls silent or refuses between the two.
                raise OperationalError(str(error)) from error
    _ = app.backend  # every publish makes a result object, and that wants one


def wake_dispatch(dispatch_id: str, room: str) -> None:
    """Publish "dispatch it".

    Raises:
        kombu.exceptions.OperationalError: Redis is down or hung (after a third of a second).
    """
    _send(DISPATCH_TASK, {"dispatch_id": dispatch_id, "room": room})


def wake_verification(dispatch_id: str, room: str) -> None:
    """Publish "verify it". Raises like `wake_dispatch`."""
    _send(VERIFY_TASK, {"dispatch_id": dispatch_id, "room": room})


def wake_supervision(dispatch_id: str, room: str) -> None:
    """Publish "its agent has fallen silent". Raises like `wake_dispatch`."""
    # One that has waited longer than the sweeper does is sent again, if it is still true.
    _send(SUPERVISE_TASK, {"dispatch_id": dispatch_id, "room": room}, expires=2)


def wake_delivery(event_id: str, dispatch_id: str, room: str, *, expires_s: float) -> None:
    """Publish "this event is due". Raises like `wake_dispatch`."""
    arguments = {"event_id": event_id, "dispatch_id": dispatch_id, "room": room}
    _send(DELIVER_TASK, arguments, expires=expires_s)


def wake_clearing(dispatch_id: str, room: str) -> None:
    """Publish "it is cancelled, take its agent away". Raises like `wake_dispatch`."""
    _send(CLEAR_TASK, {"dispatch_id": dispatch_id, "room": room})


def wake_redispatch(dispatch_id: str, room: str) -> None:
    """Publish "send it again, unless its agent is there". Raises like `wake_dispatch`."""
    _send(REDISPATCH_JOINED_TASK, {"dispatch_id": dispatch_id, "room": room})


def _send(task: str, arguments: dict[str, str], **options: Any) -> None:
    # Celery cannot know that a task called by its name keeps no result: unless told so, it would
    # subscribe this process to each one's result.
    app.send_task(task, kwargs=arguments, retry=False, ignore_result=True, **options)
