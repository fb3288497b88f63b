"""What is the web application made of?"""

from __future__ import annotations

import logging

from flask import Flask
from kombu.exceptions import OperationalError

from dispatcher import ledger, waking
from dispatcher.clients import registry
from dispatcher.errors import LedgerUnavailable
from dispatcher.logs import configure
from dispatcher.settings import CommonSettings, load
from dispatcher.store import Ledger
from web import api, health, problems
from web.services import Services

logger = logging.getLogger(__name__)

# The largest well-formed request: 64,000 bytes of metadata twice (participant's and agent's), every
# byte escaped as \u00XX, and as much again for attributes and names.
MAX_BODY_BYTES = 1_000_000
_WARM_CONNECTIONS = 10


def build() -> Flask:
    """Make the application: settings, services, views, error answers."""
    common = load(CommonSettings)
    configure(log_format=common.log_format, level=common.log_level)
    app = Flask("web", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    here = Services(common=common, clients=registry(), ledger=Ledger(common))
    app.extensions["usher"] = here
    app.register_blueprint(api.blueprint)
    app.register_blueprint(health.blueprint)
    problems.register(app)
    _warm_up(here)
    return app


def _warm_up(here: Services) -> None:
    """Import and connect now what the first request would otherwise wait for."""
    try:
        here.ledger.warm_up(_WARM_CONNECTIONS)
        here.ledger.run(ledger.ping())
        waking.warm_up()
    except (LedgerUnavailable, OperationalError):
        logger.warning("Redis does not answer yet; requests get a 503 until it does")
