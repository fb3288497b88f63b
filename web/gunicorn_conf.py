"""gunicorn's settings, each with its reason; those of the whole web are checked here first.

The master ends on what is wrong before it has started a worker, which would end with a traceback.
"""

from __future__ import annotations

import os
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

from dispatcher.celery import app as celery_app
from dispatcher.clients import registry
from dispatcher.redis_cluster import refuse_cluster
from dispatcher.settings import (
    CommonSettings,
    DispatcherSettings,
    StreamSettings,
    WebSettings,
    load,
    or_stop,
)
from web.settings import ServerSettings

with or_stop():
    _common, _streams, _server = load(CommonSettings), load(StreamSettings), load(ServerSettings)
    load(WebSettings)
    refuse_cluster(_common)
    load(DispatcherSettings)
    _ = celery_app.conf.imports  # which has Celery read its settings
    # Read once, for the workers to come too: one that is started anew while the file of clients is
    # wrong goes on with the clients of the master's start (`dispatcher/registry.py`).
    registry()

# Where each process keeps how long its answers have taken (web/metrics.py). A directory of this
# master's own, unless one is named: workers of a master that was killed may still write into its,
# and what has been counted before a start does not count any more.
_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
_OWN = f"usher-metrics-{os.getuid()}-"


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (ValueError, OSError):
        return True  # nothing of ours
    return True


def _metrics_directory() -> Path:
    named = Path(os.environ.get(_DIRECTORY, _OWN))
    own = Path(tempfile.gettempdir(), f"{_OWN}{os.getpid()}")
    if named == own:
        return own  # gunicorn reads this file once more (SIGHUP), its workers write there
    if not named.name.startswith(_OWN):
        named.mkdir(parents=True, exist_ok=True)
        for left in named.glob("*.db"):
            left.unlink(missing_ok=True)
        return named
    for left in own.parent.glob(f"{_OWN}*"):
        if not _is_alive(left.name.removeprefix(_OWN)):
            shutil.rmtree(left, ignore_errors=True)
    own.mkdir(mode=0o700, exist_ok=True)
    return own


# Before prometheus_client is imported, which looks for it then.
try:
    os.environ[_DIRECTORY] = str(_metrics_directory())
except OSError as error:
    raise SystemExit(
        f"Usher cannot start, {_DIRECTORY} cannot be written ({error.strerror}): name a folder "
        "that this process may write to, or unset it and set TMPDIR to one"
    ) from None

# Imported before the door opens, and once for all workers. Otherwise a caller who comes right after
# a restart waits in the socket's queue until a worker has imported everything (1.8 s, seen in the
# fault campaign with the master killed); so it is refused at once and asks again.
import web.app  # noqa: E402, F401  # for that alone
from dispatcher.logs import configure  # noqa: E402
from web.door import address, close_lock, open_door  # noqa: E402
from web.gunicorn_log import GunicornLog  # noqa: E402

configure(log_format=_common.log_format, level=_common.log_level)

# Connections of each process: a slow one costs some 3 kB. When there are more, the oldest of those
# that everybody is like are closed (web/worker.py).
_CONNECTIONS = 4000
# Files that are not connections of callers: Redis, logs, what Python has open.
_OTHER_FILES = 256


def _connections() -> int:
    """As many as the process may have files for, beside its event streams."""
    others = _streams.streams + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = others + _CONNECTIONS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    free = _CONNECTIONS if soft == resource.RLIM_INFINITY else soft - others
    return max(64, min(_CONNECTIONS, free))


bind = address(_server.host, str(_server.port))
# Threads, for what is not asked of the loop itself (web/worker.py) and for the time that Redis is
# slow: who waits for it must not hold up the others. Few of them: what is served at once ends at
# once. Two processes, so that one that dies is not the whole door. The worker is ours, so that none
# of them ever waits for a caller.
worker_class = "web.worker.PatientWorker"
worker_connections = _connections()
workers = _server.workers
threads = _server.threads
# Not preloaded: threads and connections must be made in each worker, after the fork.
preload_app = False
# A request that takes longer than this is a hang; every time-out of ours is below a second.
timeout = 30
graceful_timeout = 5
# Longer than the idle time-out of usual load balancers (60 s): whoever closes first must not be us,
# or a request is sent into a connection that is just being closed (seen with aiohttp and 5 s).
keepalive = 75
accesslog = None
# Its own lines in the shape of ours, from the master's first on.
logger_class = GunicornLog
control_socket_disable = True
on_starting = open_door
post_fork = close_lock


def on_exit(server: Any) -> None:
    """Called by gunicorn in its master, at the end."""
    directory = Path(os.environ[_DIRECTORY])
    if directory.name == f"{_OWN}{os.getpid()}":
        shutil.rmtree(directory, ignore_errors=True)
