"""Workers that leave the agents of other backends where they are.

`celery -A tests.faults.controls.foreign_stay worker`.
"""

from __future__ import annotations

from dispatcher.celery import app as app
from dispatcher.lifecycle import removal


def none_at_all(*_: object) -> list[object]:
    return []


assert hasattr(removal, "foreign_agents")
removal.foreign_agents = none_at_all  # type: ignore[assignment]
