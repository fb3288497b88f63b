"""Security headers on every answer: Content-Security-Policy, HSTS, Cache-Control and others.

An `after_request` of ours, because these are a dozen constant lines, and errors, static files and
event streams all pass here.
"""

from __future__ import annotations

from typing import Final

from flask import Flask, Response, request

from dispatcher.domain import urls
from web.contract.headers import ALWAYS, NOTHING
from web.services import services

_PAGE: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "font-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; manifest-src 'self'; "
    "connect-src {connect}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_ALWAYS: Final = tuple((name.lower(), name, value) for name, value in ALWAYS.items())
_HSTS: Final = "max-age=31536000"
_SECURE: Final = {"ws": "http", "wss": "https", "http": "ws", "https": "wss"}


def _connections() -> str:
    """Return the `connect-src` of our own page: the LiveKit servers.

    One client's server is named. Those of several are not: the header is public, and the list would
    name the customers.
    """
    clients = services().clients.clients
    if len(clients) > 1:
        local = any(urls.is_plain(client.livekit.url) for client in clients)
        return "'self' https: wss:" + (" http: ws:" if local else "")
    scheme, _, rest = clients[0].livekit.url.partition("://")
    host = rest.partition("/")[0]
    return f"'self' {scheme}://{host} {_SECURE[scheme]}://{host}"


def _mark(response: Response) -> Response:
    there = {name.lower() for name, _ in response.headers}
    # `setdefault` raises and catches for each.
    response.headers.extend((name, value) for low, name, value in _ALWAYS if low not in there)
    policy = NOTHING
    # Flask's own answer to OPTIONS is HTML by name only.
    if response.mimetype == "text/html" and request.method != "OPTIONS":
        policy = _PAGE.format(connect=_connections())
    if "content-security-policy" not in there:
        response.headers.add("Content-Security-Policy", policy)
    if "cache-control" not in there:
        # Tokens, records and permissions must not be kept by a proxy or on a shared disk.
        response.headers.add("Cache-Control", "no-store")
    if request.is_secure:
        response.headers.setdefault("Strict-Transport-Security", _HSTS)
    return response


def register(app: Flask) -> None:
    """Add the headers to every answer of `app`."""
    app.after_request(_mark)
