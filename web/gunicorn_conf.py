"""gunicorn's settings, each with its reason, after a check of all settings of the web.

On a wrong setting the master ends with one line, before it starts a worker, which would end with a
traceback.
"""

from __future__ import annotations

from web.server.gunicorn_worker import Worker  # before all other imports: it patches Python

# isort: split

import logging
import os
import resource
import shutil
import tempfile
from pathlib import Path
from typing import Any

import gunicorn.util

from dispatcher.celery import app as celery_app
from dispatcher.clients.registry import registry
from dispatcher.connections.redis_cluster import refuse_cluster
from dispatcher.settings import CommonSettings, DispatcherSettings, load, or_stop
from web.settings import ServerSettings, StreamSettings, WebSettings
from web.state.promise_files import is_alive

with or_stop():
    _common, _streams, _server = load(CommonSettings), load(StreamSettings), load(ServerSettings)
    load(WebSettings)
    refuse_cluster(_common.redis_url.get_secret_value(), timeout_s=_common.redis_timeout_s)
    load(DispatcherSettings)
    _ = celery_app.conf.imports  # which has Celery read its settings
    # Read once in the master: a worker that is started again while the clients file is wrong goes
    # on with the clients of the master's start (`dispatcher/clients/client_registry.py`).
    registry()

# Where each process keeps its answer times (web/monitoring/metrics.py). The directory is this
# master's own, unless one is named: workers of a killed master may still write into theirs, and
# what was counted before a start no longer counts.
_DIRECTORY = "PROMETHEUS_MULTIPROC_DIR"
_OWN = f"usher-metrics-{os.getuid()}-"


def _metrics_directory() -> Path:
    own = Path(tempfile.gettempdir(), f"{_OWN}{os.getpid()}")
    named = Path(os.environ.get(_DIRECTORY, own))
    if not named.name.startswith(_OWN):
        named.mkdir(parents=True, exist_ok=True)
        for left in named.glob("*.db"):
            left.unlink(missing_ok=True)
        return named
    for left in own.parent.glob(f"{_OWN}*"):
        pid = left.name.removeprefix(_OWN)
        if pid.isdecimal() and not is_alive(int(pid)):
            shutil.rmtree(left, ignore_errors=True)
    own.mkdir(mode=0o700, exist_ok=True)
    return own


# Before prometheus_client is imported, which reads the variable then.
try:
    os.environ[_DIRECTORY] = str(_metrics_directory())
except OSError as error:
    raise SystemExit(
        f"Usher cannot start, {_DIRECTORY} cannot be written ({error.strerror}): name a folder "
        "that this process may write to, or unset it and set TMPDIR to one"
    ) from None

# Imported before gunicorn listens, and once for all workers: else a caller right after a restart
# waits in the socket's queue until a worker has imported everything (1.8 s).
import web.app  # noqa: E402, F401  # for that reason alone
from dispatcher import start_up  # noqa: E402
from dispatcher.observability.logs import configure  # noqa: E402
from web.server import gunicorn_log, gunicorn_refusals, listening  # noqa: E402

configure(log_format=_common.log_format, level=_common.log_level)
start_up.freeze()  # else each worker would go through all of this before its first request: 0.1 s
# No line has them, and each record would look them up.
logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
logging._srcfile = None  # as Python's HOWTO says

# Connections of each process, besides its event streams: an idle or slow one costs some 50 kB. When
# all are taken, the next caller waits until one ends.
_CONNECTIONS = 4000
# Files that are not connections of callers: Redis, logs, what Python has open.
_OTHER_FILES = 256


def _connections() -> int:
    """Return how many connections the process has files for, event streams included."""
    wanted = _CONNECTIONS + _streams.streams
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = wanted + _OTHER_FILES
    if soft != resource.RLIM_INFINITY and soft < files:
        soft = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    free = wanted if soft == resource.RLIM_INFINITY else soft - _OTHER_FILES
    return max(64, min(wanted, free))


bind = listening.address(_server.host, str(_server.port))
# A greenlet for each connection: an event stream or a slow caller costs some 50 kB, and no thread.
worker_class = Worker
worker_connections = _connections()
# Two processes by default, so that one that dies is not the whole service.
workers = _server.workers
# Not preloaded: threads and connections must be made in each worker, after the fork.
preload_app = False
# The master kills a worker that is silent for so long; every time-out of ours is below a second.
timeout = 30
# For requests being answered, which take a second at the most, and for event streams, which end by
# themselves; idle connections are closed at its end.
graceful_timeout = 3
# For the next request on a connection, and for a request's head. Longer than the idle time-out of
# usual load balancers (60 s), or a request is sent into a connection that is just being closed.
keepalive = 75
# Usher's own settings name the proxies to believe (USHER_TRUSTED_PROXIES): by default gunicorn
# believes every program on this machine.
forwarded_allow_ips = ""
secure_scheme_headers: dict[str, str] = {}
forwarder_headers = ""
# gunicorn's own log lines in Usher's format, from the master's first on; its error answers, too.
logger_class = gunicorn_log.GunicornLog
gunicorn.util.write_error = gunicorn_refusals.write_error  # of gunicorn 27
control_socket_disable = True
on_starting = listening.check


def post_fork(server: Any, worker: Any) -> None:
    """Initialize gRPC for gevent in a new worker (called by gunicorn): gRPC waits in C."""
    names = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    if "grpc" in map(os.environ.get, names):
        from grpc.experimental import gevent as grpc_with_gevent

        grpc_with_gevent.init_gevent()


def post_worker_init(worker: Any) -> None:
    """Have a stop end the worker's event streams (called by gunicorn before a worker serves)."""
    worker.wsgi.extensions["usher"].streams.stopping = lambda: not worker.alive


def on_exit(server: Any) -> None:
    """Remove the metrics directory (called by gunicorn in its master, at the end)."""
    directory = Path(os.environ[_DIRECTORY])
    if directory.name == f"{_OWN}{os.getpid()}":
        shutil.rmtree(directory, ignore_errors=True)
