"""Publish the Celery messages that wake workers for a dispatch.

Tasks are sent by name, so that the sender (sweeper, client limits) need not import what the tasks
import. The web process wakes workers through the ledger (`ledger/celery_messages.py`).
"""

from __future__ import annotations

from dispatcher.celery import app

DELIVER_TASK = "dispatcher.tasks.deliver_webhook"
# The time (ms, the ledger's clock) until which a message is good. After it the sweeper claims the
# same work again and sends another message. A header, so that a worker of an older release takes
# the message as well. Not Celery's `expires`, which compares the clocks of two hosts.
GOOD_TILL_MS = "usher_good_till_ms"


def wake_worker(
    task: str, dispatch_id: str, room: str, *, good_till_ms: int = 0, **more: str
) -> None:
    """Publish a message that has a worker run `task`, if it begins before `good_till_ms` (0: ever).

    Raises:
        kombu.exceptions.OperationalError: Redis is down or hung (after a third of a second).
    """
    app.send_task(
        task,
        kwargs={"dispatch_id": dispatch_id, "room": room, **more},
        headers={GOOD_TILL_MS: good_till_ms},
        retry=False,
        # For a task called by name Celery does not know this, and would subscribe this process to
        # the result of each.
        ignore_result=True,
    )
