"""The Celery application, which `celery -A dispatcher ...` finds here.

Importing it also checks the settings of the running command (`start_checks.py`).
"""

from __future__ import annotations

import signal
from importlib import import_module
from typing import Any, Final, NoReturn

from celery import Celery
from celery.loaders.app import AppLoader
from celery.signals import after_task_publish, beat_init, celeryd_init, setup_logging

from dispatcher import config_modules
from dispatcher.connections.reconnecting import AMQP
from dispatcher.connections.redis_cluster import refuse_cluster
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.ledger import reports
from dispatcher.ledger.client import Ledger
from dispatcher.observability.liveness import AliveFile, Pulse, watch
from dispatcher.observability.logs import configure, say
from dispatcher.settings import CommonSettings, load
from dispatcher.start_checks import check_command

_CONFIG: Final = "celeryconfig"


class Loader(AppLoader):
    """Celery's loader, which by itself would import `celeryconfig.py` from the current folder."""

    def config_from_object(self, obj: Any, silent: bool = False) -> Any:
        """Load the settings; Celery calls this at the first use of one, `obj` is the app's."""
        return super().config_from_object(
            config_modules.load(obj) if obj == _CONFIG else obj, silent
        )


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


check_command(app)
