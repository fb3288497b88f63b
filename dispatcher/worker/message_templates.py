"""Templates of the messages that Celery itself sends for the ledger's wake-ups.

Celery serialises the signature of each task and kombu makes a message of it, for a transport in
memory: headers, properties and body are those of the installed releases. Names in angle brackets
stand in the places of the id and of the arguments (`celery_messages.Template`).
"""

from __future__ import annotations

from functools import cache
from typing import Any

from kombu import Connection
from kombu.utils.json import dumps

from dispatcher.celery import app
from dispatcher.ledger.celery_messages import QUEUES, Template

_ARGUMENTS = {"dispatch_id": "<dispatch_id>", "room": "<room>"}


@cache
def templates() -> tuple[Template, ...]:
    """Return a template for each task that the ledger wakes; made once in a process."""
    with app.connection_for_write("memory://") as connection:
        return tuple(_template(connection, task, queue) for task, queue in QUEUES.items())


def _template(connection: Connection, task: str, queue: str) -> Template:
    signature = app.signature(task, kwargs=_ARGUMENTS)
    signature.apply_async(
        task_id="<task_id>",
        queue=queue,
        connection=connection,
        retry=False,
        ignore_result=True,
    )
    channel: Any = connection.default_channel  # the stubs have it without this method
    message = channel.basic_get(queue, no_ack=True)
    # A worker acknowledges a message by its delivery tag, so each message needs its own.
    properties = message.properties | {"delivery_tag": "<task_id>"}
    envelope = message.serializable() | {"body": "<body>", "properties": properties}
    return Template(task=task, message=dumps(envelope), body=message.body.decode())
