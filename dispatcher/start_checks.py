"""Check the settings of a Celery command at its start, and end the process where one is wrong.

Celery logs an exception from a signal receiver and goes on, so a worker that raised there would
take messages all the same. Therefore the command is checked while Celery loads the application,
before it parses the rest of the command line.
"""

from __future__ import annotations

import os
from pathlib import Path

import click
from celery import Celery

from dispatcher import config_modules
from dispatcher.errors import ConfigurationError
from dispatcher.observability import liveness
from dispatcher.settings import CommonSettings, WorkerSettings, load, or_stop


def check_command(app: Celery) -> None:
    """Check the settings of the running `celery -A dispatcher ...`; do nothing outside of one.

    Raises:
        SystemExit: a setting is missing or wrong; one line says which and what to do.
    """
    context = click.get_current_context(silent=True)
    if context is None or not _is_ours(str(context.params.get("app"))):
        return
    command = context.invoked_subcommand
    if command is None or command == "dispatch":  # which reports errors itself (`cli/command.py`)
        return
    with or_stop():
        _check(command)
        _ = app.conf.imports  # makes Celery read its settings


def _is_ours(app: str) -> bool:
    """Return true for `dispatcher`, `dispatcher.celery`, `dispatcher.celery:app`."""
    return app.partition(":")[0].partition(".")[0] == __package__


def _check(command: str) -> None:
    common = load(CommonSettings)
    if command == "worker":
        from dispatcher.clients.registry import registry

        load(WorkerSettings)
        registry()
    if command in ("worker", "beat"):
        liveness.check(common.alive_file)
    if command == "flower":
        from dispatcher.flower_options import FlowerSettings, check

        load(FlowerSettings)
        check(os.environ)
        # Flower by itself looks for its configuration file in the current folder.
        path = os.environ.setdefault("FLOWER_CONF", str(config_modules.path_of("flowerconfig")))
        if not Path(path).is_file():
            raise ConfigurationError("FLOWER_CONF: there is no such file; unset it to use Usher's")
