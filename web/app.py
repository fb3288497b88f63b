"""The application factory: settings, services, blueprints, hooks and error handlers."""

from __future__ import annotations

import logging
from typing import Final

from flask import Flask, request
from werkzeug.exceptions import SecurityError
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from dispatcher import start_up
from dispatcher.clients.registry import registry
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger.client import AT_ONCE, Ledger
from dispatcher.observability import tracing
from dispatcher.observability.logs import configure
from dispatcher.settings import CommonSettings, DispatcherSettings, load
from web.api import cors, dispatches, livekit_webhooks, openapi, security_headers
from web.contract import problems
from web.contract.participant_tokens import participant_token
from web.contract.request_schemas import TokenRequest
from web.dashboard import api as dashboard_api
from web.dashboard import pages as dashboard_pages
from web.monitoring import health, metrics
from web.monitoring import tracing as request_tracing
from web.pages import client_page
from web.path_prefix import PathPrefix
from web.server import patience
from web.services import Services, services
from web.settings import StreamSettings, WebSettings
from web.state.abuse_limits import SpentRequests, WrongKeys, WrongPasswords
from web.state.accepted_dispatches import Promises
from web.state.cache import Snapshots
from web.state.idempotency import Delegations
from web.state.key_usage import KeyUses
from web.state.promise_files import Spool, directory_for
from web.streaming.sse import Streams

logger = logging.getLogger(__name__)

# The largest well-formed request: 64,000 bytes of metadata twice (participant's and agent's), every
# byte escaped as \u00XX, and as much again for attributes and names.
MAX_BODY_BYTES: Final = 1_000_000
# Probes and scrapes go to a process's own address, and their answers contain no URL of Usher's.
_ASKED_BY_ADDRESS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
# Each has a `blueprint`.
_VIEWS: Final = (
    *(dispatches, livekit_webhooks, openapi, health, metrics),
    *(client_page, dashboard_pages, dashboard_api),
)
# Each has a `register`. Flask calls their `after_request` hooks in the opposite order.
_HOOKS: Final = (patience, request_tracing, metrics, problems, cors, security_headers)


def build() -> Flask:
    """Make the application."""
    common = load(CommonSettings)
    configure(log_format=common.log_format, level=common.log_level)
    tracing.start("usher-web")  # in each worker, after gunicorn has forked it
    app = Flask("web", static_folder=None)
    settings = load(WebSettings)
    here = _services(common, settings)
    app.extensions["usher"] = here
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    if proxies := settings.trusted_proxies:
        fixed = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies)
        app.wsgi_app = PathPrefix(fixed, proxies=proxies)  # type: ignore[method-assign]
    for views in _VIEWS:
        app.register_blueprint(views.blueprint)
    for hooks in _HOOKS:
        hooks.register(app)
    app.before_request(_check_host)
    _warm_up(app, here)
    return app


def _check_host() -> None:
    """Refuse a request by a host name that is not in `USHER_TRUSTED_HOSTS`, if that is set.

    Flask's own check (`TRUSTED_HOSTS`) has no exception for probes, and repeats the name.
    """
    names = services().settings.host_names
    if names and request.path not in _ASKED_BY_ADDRESS and not host_is_trusted(request.host, names):
        raise SecurityError(
            "this is not a name of this service; the operator lists them in USHER_TRUSTED_HOSTS"
        )


def _services(common: CommonSettings, settings: WebSettings) -> Services:
    """Make the services of the application."""
    ledger = Ledger(common)
    return Services(
        common=common,
        dispatcher=load(DispatcherSettings),
        settings=settings,
        clients=registry(),
        ledger=ledger,
        promises=Promises(
            ledger,
            retention_s=common.retention_s,
            spool=Spool(directory_for(common.redis_url.get_secret_value())),
        ),
        key_uses=KeyUses(ledger),
        wrong_keys=WrongKeys(),
        spent_requests=SpentRequests(),
        delegations=Delegations(),
        streams=Streams(ledger, load(StreamSettings)),
        wrong_passwords=WrongPasswords(ledger),
        snapshots=Snapshots(),
    )


def _warm_up(app: Flask, here: Services) -> None:
    """Import, connect and rehearse before the first request, which would otherwise wait for it.

    Without this a first burst of 20 takes 100 ms, with it as long as any other.
    """
    try:
        here.ledger.warm_up(AT_ONCE)
        _rehearse(app, here)
    except LedgerUnavailable as error:
        logger.warning(
            "Redis is not there yet; until it is sessions are delegated or refused",
            extra={"error": str(error)},
        )
    start_up.freeze()


def _rehearse(app: Flask, here: Services) -> None:
    """Do the work of a request, but accept no dispatch."""
    with app.test_request_context("/healthz", environ_overrides={metrics.REHEARSAL: "1"}):
        app.full_dispatch_request()
        here.ledger.look_at_clock()
        credentials = here.clients.clients[0].livekit
        participant_token(credentials, TokenRequest(), dispatch_id="-", room_name="-", identity="-")
