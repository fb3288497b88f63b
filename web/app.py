"""The application factory: settings, services, blueprints and hooks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final

from flask import Flask, request
from werkzeug.exceptions import SecurityError
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.utils import host_is_trusted

from dispatcher import start_up
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger.client import AT_ONCE
from dispatcher.observability import tracing
from dispatcher.observability.logs import configure
from dispatcher.settings import CommonSettings, load
from web.api import cors, dispatches, livekit_webhooks, openapi, security_headers
from web.api.security_headers import with_security_headers
from web.contract import problems
from web.contract.participant_tokens import participant_token
from web.contract.request_schemas import TokenRequest
from web.dashboard import api as dashboard_api
from web.dashboard import pages as dashboard_pages
from web.monitoring import health, metrics
from web.monitoring import tracing as request_tracing
from web.pages import client_page
from web.path_prefix import path_prefix
from web.server import one_packet, slow_callers
from web.services import Services, make_services, services

logger = logging.getLogger(__name__)

# The largest well-formed request: 64,000 bytes of metadata twice (participant's and agent's), every
# byte escaped as \u00XX, and as much again for attributes and names.
MAX_BODY_BYTES: Final = 1_000_000
# Probes and scrapes go to a process's own address, and their answers contain no URL of Usher's.
_ASKED_BY_ADDRESS: Final = frozenset({"/healthz", "/readyz", "/metrics"})
# Each has a `blueprint`. Flask calls their `after_app_request` hooks in the opposite order.
_PARTS: Final = (
    *(slow_callers, one_packet, request_tracing, metrics, problems, cors, security_headers),
    *(dispatches, livekit_webhooks, openapi, health),
    *(client_page, dashboard_pages, dashboard_api),
)


class _Application(Flask):
    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return `func`: no view and no hook of ours is async, and Flask asks at each request."""
        return func


def build() -> Flask:
    """Make the application."""
    common = load(CommonSettings)
    configure(log_format=common.log_format, level=common.log_level)
    tracing.start("usher-web")  # in each worker, after gunicorn has forked it
    app = _Application("web", static_folder=None)
    app.wsgi_app = with_security_headers(app.wsgi_app)  # type: ignore[assignment, method-assign]
    app.extensions["usher"] = here = make_services(common)
    app.config["MAX_CONTENT_LENGTH"] = MAX_BODY_BYTES
    if proxies := here.settings.trusted_proxies:
        fixed = ProxyFix(app.wsgi_app, x_for=proxies, x_proto=proxies)
        app.wsgi_app = path_prefix(fixed, proxies=proxies)  # type: ignore[assignment, method-assign]
    for part in _PARTS:
        if part is not request_tracing or tracing.on():
            app.register_blueprint(part.blueprint)
    if here.settings.host_names:
        app.before_request(_check_host)
    _warm_up(app, here)
    return app


def _check_host() -> None:
    """Refuse a request by a host name that is not in `USHER_TRUSTED_HOSTS`.

    Flask's own check (`TRUSTED_HOSTS`) has no exception for probes, and repeats the name.
    """
    names = services().settings.host_names
    if request.path not in _ASKED_BY_ADDRESS and not host_is_trusted(request.host, names):
        raise SecurityError(
            "this is not a name of this service; the operator lists them in USHER_TRUSTED_HOSTS"
        )


def _warm_up(app: Flask, here: Services) -> None:
    """Connect, and do the work of a request, so that no first request has to wait for that.

    Why: `docs/decisions/0011-one-redis-round-trip.md`.
    """
    try:
        here.ledger.warm_up(AT_ONCE)
        here.ledger.look_at_clock()
        with app.test_request_context("/healthz", environ_overrides={metrics.REHEARSAL: "1"}):
            app.full_dispatch_request()
            livekit = here.clients.clients[0].livekit
            participant_token(livekit, TokenRequest(), dispatch_id="-", room_name="-", identity="-")
    except LedgerUnavailable as error:
        logger.warning(
            "Redis is not there yet; until it is sessions are delegated or refused",
            extra={"error": str(error)},
        )
    start_up.freeze()
