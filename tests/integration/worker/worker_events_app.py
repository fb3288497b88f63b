"""A Celery application with this project's settings and a task of its own, for its worker's events.

`celery -A tests.integration.worker.worker_events_app worker --pool threads`
"""

from __future__ import annotations

from pathlib import Path

from celery import Celery

app = Celery("test", set_as_current=False)
app.config_from_object("celeryconfig")
app.conf.imports = ()


@app.task(name="touch")  # type: ignore[untyped-decorator]
def touch(path: str) -> None:
    """Leave a trace of having run."""
    Path(path).touch()
