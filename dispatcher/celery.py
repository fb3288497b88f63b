"""The Celery application, which `celery -A dispatcher ...` finds here.

Importing it also checks the settings of the running command, and ends the process where one is
wrong. A receiver of a signal could not: Celery logs its exception, and takes messages all the same.
"""

from __future__ import annotations

import os
import re
import signal
from importlib import import_module
from pathlib import Path
from runpy import run_path
from typing import Any, Final, NoReturn

import click
from celery import Celery
from celery.loaders.app import AppLoader
from celery.signals import after_task_publish, beat_init, celeryd_init, setup_logging

from dispatcher.clients.registry import registry
from dispatcher.connections.celery_broker import AMQP
from dispatcher.connections.redis_cluster import refuse_cluster
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.ledger import reports
from dispatcher.ledger.client import Ledger
from dispatcher.observability import liveness
from dispatcher.observability.liveness import AliveFile, Pulse, watch
from dispatcher.observability.logs import configure, say
from dispatcher.settings import CommonSettings, WorkerSettings, load, or_stop

# The folder of `celeryconfig.py` and `flowerconfig.py`, in a checkout as in an installed package.
# Celery and Flower by themselves look in the current one, where another program may have its own.
_FOLDER: Final = Path(__file__).resolve().parent.parent
_CONFIG: Final = "celeryconfig"


class Loader(AppLoader):
    """Celery's loader, with Usher's own `celeryconfig.py`."""

    def config_from_object(self, obj: Any, silent: bool = False) -> Any:
        """Load the settings; Celery calls this at the first use of one, `obj` is the app's."""
        if obj == _CONFIG:
            obj = run_path(str(_FOLDER / "celeryconfig.py"))
        return super().config_from_object(obj, silent)


app = Celery("usher", loader=Loader, amqp=AMQP)
app.config_from_object(_CONFIG)


@celeryd_init.connect
@setup_logging.connect
def _logging(**_: Any) -> None:
    # With a receiver here Celery leaves the root logger alone. `celeryd_init` comes earlier, before
    # a worker's warning that it runs as root.
    settings = load(CommonSettings)
    configure(log_format=settings.log_format, level=settings.log_level)


@celeryd_init.connect
def _tell_of_signals(**_: Any) -> None:
    # Celery writes "Warm shutdown" to the terminal, past all logging.
    worker: Any = import_module("celery.apps.worker")
    worker.safe_say = say


@celeryd_init.connect
@beat_init.connect
def _refuse_cluster(**_: Any) -> None:
    try:
        common = load(CommonSettings)
        refuse_cluster(common.redis_url.get_secret_value(), timeout_s=common.redis_timeout_s)
    except ConfigurationError as error:
        raise SystemExit(str(error)) from None  # Celery logs any other exception and goes on


@beat_init.connect
def _end_on_signal(sender: Any, **_: Any) -> None:
    # Beat's own handler only raises SystemExit. In the middle of a publish redis-py turns that into
    # a ValueError, and beat goes on (1 of 12 stops; 0 of 36 with this handler).
    def end(*_: Any) -> NoReturn:
        sender.stop()
        raise SystemExit

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)


@beat_init.connect
def _show_that_it_lives(**_: Any) -> None:
    settings = load(CommonSettings)
    if not settings.alive_file:
        return
    # A beat whose loop has stopped sends no sweeps.
    pulse, ledger = Pulse(), Ledger(settings)
    after_task_publish.connect(pulse.feel, weak=False)
    watch(AliveFile(settings.alive_file), pulse, lambda: redis_works(ledger))


def redis_works(store: Ledger) -> bool:
    """Return whether Redis takes writes; a Redis that only answers reads takes no messages."""
    try:
        store.run(reports.probe())
    except LedgerUnavailable:
        return False
    return True


def _check_command() -> None:
    """Check the settings of the running `celery -A dispatcher ...`; do nothing outside of one."""
    context = click.get_current_context(silent=True)
    # `dispatcher`, `dispatcher.celery` or `dispatcher.celery:app`
    if context is None or not re.match(r"dispatcher\b", str(context.params.get("app"))):
        return
    command = context.invoked_subcommand
    if command is None or command == "dispatch":  # which reports errors itself (`cli/command.py`)
        return
    with or_stop():
        common = load(CommonSettings)
        if command == "worker":
            load(WorkerSettings)
            registry()
        if command in ("worker", "beat"):
            liveness.check(common.alive_file)
        if command == "flower":
            _check_flower()
        _ = app.conf.imports  # makes Celery read its settings


def _check_flower() -> None:
    from dispatcher.flower_options import FlowerSettings, check

    load(FlowerSettings)
    check(os.environ)
    path = os.environ.setdefault("FLOWER_CONF", str(_FOLDER / "flowerconfig.py"))
    if not Path(path).is_file():
        raise ConfigurationError("FLOWER_CONF: there is no such file; unset it to use Usher's")


_check_command()
