"""What if Celery's messages were all there is, with Celery's own settings?

`celery -A tests.faults.controls.celery_defaults worker`: the product's tasks, and nothing else.
"""

from __future__ import annotations

import os

from dispatcher.celery import app


class Defaults:
    """No setting but where things are."""

    broker_url = os.environ["REDIS_URL"]
    result_backend = os.environ["REDIS_URL"]
    imports = ("dispatcher.tasks",)
    task_default_queue = "dispatch"
    task_routes = {  # noqa: RUF012  Celery reads it from the class
        "dispatcher.tasks.verify_dispatch": {"queue": "verify"},
        "dispatcher.tasks.supervise": {"queue": "verify"},
    }


app.config_from_object(Defaults, force=True)
