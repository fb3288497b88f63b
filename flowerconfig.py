"""Flower's settings, each with its reason; `celery -A dispatcher flower` reads this file.

`FLOWER_...` variables and Flower's command-line options override what is set here.
"""

import ast
from typing import Any

from tornado.options import options

from dispatcher import start_up
from dispatcher.connections.redis_cluster import refuse_cluster
from dispatcher.flower_options import FlowerSettings
from dispatcher.observability.flower_history import finish_save
from dispatcher.observability.logs import configure
from dispatcher.settings import CommonSettings, load, or_stop

with or_stop():
    _common, _flower = load(CommonSettings), load(FlowerSettings)
    refuse_cluster(_common.redis_url.get_secret_value(), timeout_s=_common.redis_timeout_s)

# Tornado's log lines get the same format as ours.
configure(log_format=_common.log_format, level=_common.log_level)

# A user of Flower sees rooms and dispatch ids, and can stop workers. Flower's default is to start
# without a password; here it does not.
_logins = list(options.basic_auth or ())
if not options.auth and not _logins:
    raise SystemExit(
        "Flower does not start without a password: set FLOWER_BASIC_AUTH=<user>:<password>"
    )
if not all(user and password for user, _, password in (each.partition(":") for each in _logins)):
    raise SystemExit("FLOWER_BASIC_AUTH must be <user>:<password>, and neither of them empty")

address, port = _flower.address, _flower.port
tasks_columns = _flower.tasks_columns
max_tasks = _flower.max_tasks
persistent = _flower.persistent
db = str(_flower.history)
state_save_interval = _flower.state_save_interval_ms
purge_offline_workers = _flower.purge_offline_workers_s

if not options.unix_socket:
    with or_stop():
        start_up.check_address(address, port, named="FLOWER_ADDRESS and FLOWER_PORT")

# Flower saves its history when it is stopped, and periodically in case it is killed; each save
# replaces the file.
if persistent:
    # Only its owner may write there: the history is a pickle, so a writer can run code in Flower.
    try:
        _flower.history.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SystemExit(
            f"Flower cannot keep its history in {_flower.history.parent} ({error.strerror}): set "
            "FLOWER_DB=<folder of its own>/tasks, or FLOWER_PERSISTENT=false"
        ) from None
    finish_save(db)


def format_task(task: Any) -> Any:
    """Return `task` (Flower gives a copy) as the pages show it: dispatch id, room, then the rest.

    The column is too narrow for both together with their argument names, which the search uses.
    """
    try:
        given = ast.literal_eval(task.kwargs or "")
    except (SyntaxError, ValueError):
        return task
    if isinstance(given, dict):
        first = [given.pop(name) for name in ("dispatch_id", "room") if name in given]
        task.kwargs = " ".join(str(value) for value in [*first, *given.values()])
    return task
