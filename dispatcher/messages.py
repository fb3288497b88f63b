"""What does a worker find in its queue, when the ledger itself has put it there?

A new record and its wake-up are written in one step (`create.lua`), and so are "LiveKit has it" and
its verification, or "cancelled" and the clearing away (`advance.lua`): neither is ever without the
other. Redis knows nothing of Celery,
so the message is written before: Celery's protocol 2 in the envelope of kombu's Redis transport,
with what a worker and Flower read, and no more, since it is kept for every session that waits.
Sources: docs.celeryq.dev, "Message Protocol"; `kombu.transport.virtual.Message`. The tests compare
it with what Celery itself sends.
"""

from __future__ import annotations

from dataclasses import dataclass
from secrets import token_hex
from typing import Final

from pydantic_core import to_json

from dispatcher.keys import DISPATCH_QUEUE, VERIFY_QUEUE

DISPATCH_TASK: Final = "dispatcher.tasks.dispatch_agent"
VERIFY_TASK: Final = "dispatcher.tasks.verify_dispatch"
SUPERVISE_TASK: Final = "dispatcher.tasks.supervise"
CLEAR_TASK: Final = "dispatcher.tasks.clear_away"
REDISPATCH_JOINED_TASK: Final = "dispatcher.tasks.redispatch_joined"


@dataclass(frozen=True, kw_only=True)
class Wake:
    """A message for the left end of a Redis list."""

    queue: str
    message: str


def dispatch(dispatch_id: str, room: str) -> Wake:
    """Tell a worker to dispatch it."""
    return _wake(DISPATCH_QUEUE, DISPATCH_TASK, dispatch_id, room)


def verify(dispatch_id: str, room: str) -> Wake:
    """Tell a worker to verify it."""
    return _wake(VERIFY_QUEUE, VERIFY_TASK, dispatch_id, room)


def clear(dispatch_id: str, room: str) -> Wake:
    """Tell a worker that it is cancelled, and its agent to be taken away."""
    return _wake(VERIFY_QUEUE, CLEAR_TASK, dispatch_id, room)


def supervise(dispatch_id: str, room: str) -> Wake:
    """Tell a worker that its agent is lost."""
    return _wake(DISPATCH_QUEUE, SUPERVISE_TASK, dispatch_id, room)


def redispatch_joined(dispatch_id: str, room: str) -> Wake:
    """Tell a worker to send it again, unless its agent is there."""
    return _wake(DISPATCH_QUEUE, REDISPATCH_JOINED_TASK, dispatch_id, room)


def _wake(queue: str, task: str, dispatch_id: str, room: str) -> Wake:
    task_id = token_hex(16)
    arguments = {"dispatch_id": dispatch_id, "room": room}
    message = {
        "body": to_json([[], arguments, {}]).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": {
            "lang": "py",
            "task": task,
            "id": task_id,
            "root_id": task_id,
            "argsrepr": "()",
            "kwargsrepr": repr(arguments),
            "ignore_result": True,
        },
        "properties": {
            "delivery_info": {"exchange": "", "routing_key": queue},
            "delivery_tag": task_id,
        },
    }
    return Wake(queue=queue, message=to_json(message).decode())
