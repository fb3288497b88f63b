"""Security headers on every answer: Content-Security-Policy, HSTS, Cache-Control and others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from flask import Blueprint, Response, request

from dispatcher.domain import urls
from web.contract.headers import SECURITY_HEADERS
from web.services import services

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

blueprint = Blueprint("security_headers", __name__)

_PAGE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; manifest-src 'self'; "
    "connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HSTS: Final = "max-age=31536000"
_SECURE: Final = {"ws": "http", "wss": "https", "http": "ws", "https": "wss"}


def _connections() -> str:
    """Return the `connect-src` of our own page: one client's LiveKit server.

    Those of several clients are not named: the header is public, and would tell the customers.
    """
    clients = services().clients.clients
    if len(clients) > 1:
        local = any(urls.is_plain(client.livekit.url) for client in clients)
        return "'self' https: wss:" + (" http: ws:" if local else "")
    scheme, _, rest = clients[0].livekit.url.partition("://")
    host = rest.partition("/")[0]
    return f"'self' {scheme}://{host} {_SECURE[scheme]}://{host}"


@blueprint.after_app_request
def _add_headers(response: Response) -> Response:
    """Add the headers that depend on the request."""
    # Flask's own answer to OPTIONS is HTML by name only.
    if response.mimetype == "text/html" and request.method != "OPTIONS":
        response.headers.setdefault("Content-Security-Policy", _PAGE.format(connect=_connections()))
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", _HSTS)
    return response


def with_security_headers(application: WSGIApplication) -> WSGIApplication:
    """Add `SECURITY_HEADERS` to every answer that has not set its own.

    WSGI middleware: werkzeug takes 40 us to set these headers in a response.
    """

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        def start(status: str, headers: list[tuple[str, str]], *error: Any) -> Any:
            own = {name.lower() for name, _ in headers}
            headers.extend(each for each in SECURITY_HEADERS.items() if each[0].lower() not in own)
            return start_response(status, headers, *error)

        return application(environ, start)

    return respond
