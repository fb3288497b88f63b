"""Flower's settings, each with its reason; Flower reads this file where it is started.

A `FLOWER_...` variable and Flower's own options stand above what is here.
"""

import ast
import os
from pathlib import Path
from typing import Any

from tornado.options import options

from dispatcher.errors import ConfigurationError
from dispatcher.flower_history import finish_save
from dispatcher.logs import configure
from dispatcher.redis_cluster import refuse_cluster
from dispatcher.settings import CommonSettings, load

# Tornado's own lines go into the shape of ours.
_common = load(CommonSettings)
try:
    refuse_cluster(_common)
except ConfigurationError as error:
    raise SystemExit(str(error)) from None
configure(log_format=_common.log_format, level=_common.log_level)

# Whoever sees Flower sees rooms and dispatch ids, and can stop workers. It starts without a
# password by default; here it does not.
_logins = list(options.basic_auth or ())
if not options.auth and not _logins:
    raise SystemExit(
        "Flower does not start without a password: set FLOWER_BASIC_AUTH=<user>:<password>"
    )
if not all(user and password for user, _, password in (each.partition(":") for each in _logins)):
    raise SystemExit("FLOWER_BASIC_AUTH must be <user>:<password>, and neither of them empty")

# By default all addresses of the machine.
address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
port = int(os.environ.get("FLOWER_PORT", os.environ.get("USHER_FLOWER_PORT", "5555")))

# A session is found by its room or dispatch id, which are in `kwargs` (docs/operations.md);
# `result` says how it stood after the task.
tasks_columns = os.environ.get(
    "FLOWER_TASKS_COLUMNS", "name,kwargs,state,result,received,runtime,worker"
)

# The history outlives a restart. Flower saves it when it is stopped, and every so often for the
# case that it is killed; each time a new file takes the place of the old one.
persistent = os.environ.get("FLOWER_PERSISTENT", "true").lower() in ("1", "true", "yes", "on")
db = os.environ.get("FLOWER_DB") or str(
    Path(os.environ.get("USHER_RUN_DIR") or ".run") / "flower" / "tasks"
)
# Flower answers nobody while it saves, and saves everything each time: 10,000 tasks (some 3,000
# sessions) are 3 MB and 0.6 s, and 0.2 GB of memory; 100,000, its default, ten times as much.
max_tasks = int(os.environ.get("FLOWER_MAX_TASKS", "10000"))
state_save_interval = int(os.environ.get("FLOWER_STATE_SAVE_INTERVAL", "60000"))  # ms
# A kept history would show for ever every worker that there has been, one for each machine's name.
purge_offline_workers = int(os.environ.get("FLOWER_PURGE_OFFLINE_WORKERS", "86400"))  # s

if persistent:
    # Only its owner: whoever can write there can have Flower run what he likes (it is a pickle).
    try:
        Path(db).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(
            f"Flower cannot keep its history in {Path(db).parent} ({error.strerror}): set "
            "FLOWER_DB=<folder of its own>/tasks, or FLOWER_PERSISTENT=false"
        ) from None
    finish_save(db)


def format_task(task: Any) -> Any:
    """`task` as the pages show it (Flower gives a copy): dispatch id and room, then the rest.

    The column is too narrow for both with the names that the search knows them by.
    """
    try:
        given = ast.literal_eval(task.kwargs or "")
    except (SyntaxError, ValueError):
        return task
    if isinstance(given, dict):
        first = [given.pop(name) for name in ("dispatch_id", "room") if name in given]
        task.kwargs = " ".join(str(value) for value in [*first, *given.values()])
    return task
