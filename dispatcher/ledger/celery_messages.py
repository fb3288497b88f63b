"""Celery messages that the ledger pushes, in the step that makes them necessary.

A new record and its wake-up are written in one step (`create.lua`), and so are `dispatched` and the
verification, or `cancelled` and the cleanup (`advance.lua`): neither is ever without the other. The
message is Celery's own: each worker keeps in Redis what Celery would send for a task
(`worker/message_templates.py`), and `celery_message.lua` fills in the dispatch. So an agent server,
which has no Celery, can wake a worker, too. Why: `docs/decisions/0133-celerys-own-messages.md`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from secrets import token_hex
from typing import Final

from dispatcher.ledger import keys
from dispatcher.ledger.step import Step

DISPATCH_TASK: Final = "dispatcher.tasks.dispatch_agent"
VERIFY_TASK: Final = "dispatcher.tasks.verify_dispatch"
SUPERVISE_TASK: Final = "dispatcher.tasks.supervise"
CLEAR_TASK: Final = "dispatcher.tasks.clear_away"
REDISPATCH_JOINED_TASK: Final = "dispatcher.tasks.redispatch_joined"

# The queue for the message of each task.
QUEUES: Final[Mapping[str, str]] = {
    DISPATCH_TASK: keys.DISPATCH_QUEUE,
    VERIFY_TASK: keys.VERIFY_QUEUE,
    # Not behind the dispatches that wait: an agent is gone, and a person may be alone.
    SUPERVISE_TASK: keys.SWEEP_QUEUE,
    CLEAR_TASK: keys.VERIFY_QUEUE,
    REDISPATCH_JOINED_TASK: keys.DISPATCH_QUEUE,
}


@dataclass(frozen=True)
class Wake:
    """A message that has a worker run `task` for a dispatch; `lua/celery_message.lua` reads it."""

    task: str
    dispatch_id: str
    room: str
    task_id: str = field(default_factory=lambda: token_hex(16))

    @property
    def queue(self) -> str:
        """Queue of its message."""
        return QUEUES[self.task]


# The messages, of a dispatch's id and room: they have a worker dispatch it, verify it, remove the
# agent of a cancelled one, look after a lost agent, or redispatch it unless its agent is there.
dispatch: Final = partial(Wake, DISPATCH_TASK)
verify: Final = partial(Wake, VERIFY_TASK)
clear: Final = partial(Wake, CLEAR_TASK)
supervise: Final = partial(Wake, SUPERVISE_TASK)
redispatch_joined: Final = partial(Wake, REDISPATCH_JOINED_TASK)


@dataclass(frozen=True, kw_only=True)
class Template:
    """Celery's message for `task`, with names in angle brackets in place of the values."""

    task: str
    message: str  # the envelope with headers and properties; `<body>` stands for the body
    body: str  # the task's arguments, as serialised by Celery


def keep(templates: Iterable[Template], *, replace: bool) -> Step[int]:
    """Keep the templates for all processes that push messages.

    Args:
        replace: overwrite earlier templates, which another release of Celery may have written; else
            write only what Redis does not have.
    """
    fields = [
        text
        for each in templates
        for text in (each.task, each.message, f"{each.task}:body", each.body)
    ]
    return Step("keep_messages", (keys.MESSAGES,), (int(replace), *fields), int)
