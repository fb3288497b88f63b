"""The path under which a proxy serves Usher, for links and cookies.

The proxy strips the prefix from the path and sends it in `X-Forwarded-Prefix` (Traefik's
StripPrefix does so by itself). Like `X-Forwarded-For`, it is believed from `USHER_TRUSTED_PROXIES`
proxies.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# The prefix is put into links and cookies, so it may contain no character with a meaning there.
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+")


def prefix_of(forwarded: str, *, proxies: int) -> str:
    """Return the path in `X-Forwarded-Prefix`, without a slash at its end; "" where it has none.

    Each proxy that strips a part adds it at the end; parts beyond the number of our `proxies` come
    from the caller.
    """
    parts = [part.strip().rstrip("/") for part in forwarded.split(",")]
    prefix = "".join(parts[-proxies:])
    return prefix if _PREFIX.fullmatch(prefix) else ""


def path_prefix(app: WSGIApplication, *, proxies: int) -> WSGIApplication:
    """Return WSGI middleware that makes the prefix the application's `SCRIPT_NAME` (PEP 3333)."""

    def prefixed(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if forwarded := environ.get("HTTP_X_FORWARDED_PREFIX"):
            environ["SCRIPT_NAME"] = prefix_of(forwarded, proxies=proxies)
        return app(environ, start_response)

    return prefixed
