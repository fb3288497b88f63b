"""Publish the Celery messages that wake workers for a dispatch.

Tasks are sent by name, so that the sender (sweeper, client limits, CLI) need not import what the
tasks import. The web process wakes workers through the ledger (`ledger/celery_messages.py`).
"""

from __future__ import annotations

from typing import Any

from dispatcher.celery import app
from dispatcher.ledger.celery_messages import (
    CLEAR_TASK,
    DISPATCH_TASK,
    REDISPATCH_JOINED_TASK,
    SUPERVISE_TASK,
    VERIFY_TASK,
)

DELIVER_TASK = "dispatcher.tasks.deliver_webhook"
# The time (ms, the ledger's clock) until which a message is good. After it the sweeper claims the
# same work again and sends another message. A header, so that a worker of an older release takes
# the message as well. Not Celery's `expires`, which compares the clocks of two hosts.
GOOD_TILL_MS = "usher_good_till_ms"


def wake_dispatch(dispatch_id: str, room: str) -> None:
    """Publish "dispatch this".

    Raises:
        kombu.exceptions.OperationalError: Redis is down or hung (after a third of a second).
    """
    _send(DISPATCH_TASK, {"dispatch_id": dispatch_id, "room": room})


def wake_verification(dispatch_id: str, room: str) -> None:
    """Publish "verify this dispatch". Raises like `wake_dispatch`."""
    _send(VERIFY_TASK, {"dispatch_id": dispatch_id, "room": room})


def wake_supervision(dispatch_id: str, room: str, *, good_till_ms: int = 0) -> None:
    """Publish "the agent has fallen silent" (0: good for ever). Raises like `wake_dispatch`."""
    arguments = {"dispatch_id": dispatch_id, "room": room}
    _send(SUPERVISE_TASK, arguments, headers={GOOD_TILL_MS: good_till_ms})


def wake_delivery(event_id: str, dispatch_id: str, room: str, *, good_till_ms: int) -> None:
    """Publish "this webhook event is due". Raises like `wake_dispatch`."""
    arguments = {"event_id": event_id, "dispatch_id": dispatch_id, "room": room}
    _send(DELIVER_TASK, arguments, headers={GOOD_TILL_MS: good_till_ms})


def wake_clearing(dispatch_id: str, room: str) -> None:
    """Publish "remove the agent of this cancelled dispatch". Raises like `wake_dispatch`."""
    _send(CLEAR_TASK, {"dispatch_id": dispatch_id, "room": room})


def wake_redispatch(dispatch_id: str, room: str) -> None:
    """Publish "redispatch, unless the agent is there". Raises like `wake_dispatch`."""
    _send(REDISPATCH_JOINED_TASK, {"dispatch_id": dispatch_id, "room": room})


def _send(task: str, arguments: dict[str, str], **options: Any) -> None:
    # For a task called by name Celery does not know `ignore_result`, and would subscribe this
    # process to the result of each.
    app.send_task(task, kwargs=arguments, retry=False, ignore_result=True, **options)
