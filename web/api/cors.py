"""CORS for each client: a browser may call from the origins of the client whose key it sends.

A preflight carries no key, so it is answered for every origin that some client has. Any request
header is allowed: tracing in browsers adds its own (`traceparent`, `sentry-trace`, `x-datadog-*`).
"""

from __future__ import annotations

import re
from typing import Final

from flask import Blueprint, Response, request

from web.auth.api_keys import caller
from web.contract.problems import Problem
from web.services import services

blueprint = Blueprint("cors", __name__)

_PREFIX: Final = "/api/"
_METHODS: Final = "GET, POST"  # redispatch, list and cancel are for servers
_HEADERS: Final = ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID")
_ASKS_FOR: Final = "Access-Control-Request-Headers"
_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_MAX_HEADERS: Final = 50
_READABLE: Final = "Retry-After"
_MAX_AGE_S: Final = 600


def _origins() -> set[str]:
    clients = services().clients.clients
    return {origin for client in clients if not client.disabled for origin in client.origins}


def _headers() -> str:
    """Return the headers that the API reads, and every other that the page wants to send."""
    asked = [name.strip() for name in request.headers.get(_ASKS_FOR, "").split(",")[:_MAX_HEADERS]]
    known = {name.lower() for name in _HEADERS}
    more = [name for name in asked if _HEADER_NAME.fullmatch(name) and name.lower() not in known]
    return ", ".join((*_HEADERS, *more))


@blueprint.before_app_request
def _preflight() -> Response | None:
    asks = request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers
    if not asks or not request.path.startswith(_PREFIX):
        return None
    if request.headers.get("Origin", "") not in _origins():
        return Problem(403, "no client of ours has a page at this origin").response()
    answer = Response(status=204)
    answer.headers["Access-Control-Allow-Methods"] = _METHODS
    answer.headers["Access-Control-Allow-Headers"] = _headers()
    answer.vary.add(_ASKS_FOR)
    answer.headers["Access-Control-Max-Age"] = str(_MAX_AGE_S)
    return answer


@blueprint.after_app_request
def _add_headers(response: Response) -> Response:
    if not request.path.startswith(_PREFIX):
        return response
    vary = response.headers.get("Vary")
    response.headers["Vary"] = f"{vary}, Origin" if vary else "Origin"
    if origin := request.environ.get("HTTP_ORIGIN"):
        who = caller()
        # Without a valid key, every client's pages may read why it is refused.
        if origin in (who.client.origins if who else _origins()):
            response.headers["Access-Control-Allow-Origin"] = origin
            response.headers["Access-Control-Expose-Headers"] = _READABLE
    return response
