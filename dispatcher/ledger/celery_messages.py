"""The wake-ups that the ledger puts into Celery's queues, in the step that makes them needed.

A new record and its wake-up are written in one step (`create.lua`), and so are "LiveKit has it" and
its verification, or "cancelled" and the clearing away (`advance.lua`): neither is ever without the
other. The message is Celery's own: each worker keeps in Redis what Celery would send for a task
(`worker/message_templates.py`), and `celery_message.lua` fills in whom it is about. So an agent
server, which has no Celery, wakes a worker, too. Why:
`docs/decisions/0133-celerys-own-messages.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Final

from pydantic_core import to_json

from dispatcher.ledger import keys
from dispatcher.ledger.step import Step

DISPATCH_TASK: Final = "dispatcher.tasks.dispatch_agent"
VERIFY_TASK: Final = "dispatcher.tasks.verify_dispatch"
SUPERVISE_TASK: Final = "dispatcher.tasks.supervise"
CLEAR_TASK: Final = "dispatcher.tasks.clear_away"
REDISPATCH_JOINED_TASK: Final = "dispatcher.tasks.redispatch_joined"

# Into which queue the ledger puts the message for each task.
QUEUES: Final[Mapping[str, str]] = {
    DISPATCH_TASK: keys.DISPATCH_QUEUE,
    VERIFY_TASK: keys.VERIFY_QUEUE,
    SUPERVISE_TASK: keys.DISPATCH_QUEUE,
    CLEAR_TASK: keys.VERIFY_QUEUE,
    REDISPATCH_JOINED_TASK: keys.DISPATCH_QUEUE,
}


@dataclass(frozen=True, kw_only=True)
class Wake:
    """A worker to be told to do `task` about a dispatch."""

    task: str
    dispatch_id: str
    room: str
    task_id: str = field(default_factory=lambda: token_hex(16))

    @property
    def queue(self) -> str:
        """The queue that its message goes into."""
        return QUEUES[self.task]

    def order(self) -> dict[str, str]:
        """As `lua/celery_message.lua` reads it."""
        return {
            "task": self.task,
            "task_id": self.task_id,
            "dispatch_id": self.dispatch_id,
            "room": self.room,
        }

    def json(self) -> str:
        """The order as JSON."""
        return to_json(self.order()).decode()


def dispatch(dispatch_id: str, room: str) -> Wake:
    """Tell a worker to dispatch it."""
    return Wake(task=DISPATCH_TASK, dispatch_id=dispatch_id, room=room)


def verify(dispatch_id: str, room: str) -> Wake:
    """Tell a worker to verify it."""
    return Wake(task=VERIFY_TASK, dispatch_id=dispatch_id, room=room)


def clear(dispatch_id: str, room: str) -> Wake:
    """Tell a worker that it is cancelled, and its agent to be taken away."""
    return Wake(task=CLEAR_TASK, dispatch_id=dispatch_id, room=room)


def supervise(dispatch_id: str, room: str) -> Wake:
    """Tell a worker that its agent is lost."""
    return Wake(task=SUPERVISE_TASK, dispatch_id=dispatch_id, room=room)


def redispatch_joined(dispatch_id: str, room: str) -> Wake:
    """Tell a worker to send it again, unless its agent is there."""
    return Wake(task=REDISPATCH_JOINED_TASK, dispatch_id=dispatch_id, room=room)


@dataclass(frozen=True, kw_only=True)
class Template:
    """What Celery sends for `task`, with names in angle brackets where the values go.

    Attributes:
        body: the task's arguments, as Celery has serialised them.
        message: the envelope with headers and properties; `<body>` stands for the body.
    """

    task: str
    message: str
    body: str


def keep(templates: Iterable[Template], *, replace: bool) -> Step[int]:
    """Keep the templates for all processes that push messages.

    Args:
        replace: those of before, which another release of Celery may have written; else only what
            Redis does not have is written.
    """
    fields = [
        text
        for each in templates
        for text in (each.task, each.message, f"{each.task}:body", each.body)
    ]
    return Step("keep_messages", (keys.MESSAGES,), ("1" if replace else "0", *fields), int)
