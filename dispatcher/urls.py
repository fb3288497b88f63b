"""Which addresses may a client's entry name? Nothing that would carry a secret in the clear."""

from __future__ import annotations

import ipaddress
from typing import Final
from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(url: str, secure: tuple[str, ...], plain: tuple[str, ...]) -> SplitResult:
    schemes = " or ".join(f"{scheme}://" for scheme in secure)
    parts = urlsplit(url)  # its ValueErrors do not repeat the URL's password
    host, _ = parts.hostname, parts.port
    if parts.username is not None or parts.password is not None:
        raise ValueError("must not have a user or password in it")
    if not host or any(c.isspace() or not c.isprintable() for c in url):
        raise ValueError(f"must be {schemes} and a host")
    if parts.scheme in plain and not _is_loopback(host):
        raise ValueError(f"must begin with {schemes}: without TLS only loopback is allowed")
    if parts.scheme not in (*secure, *plain):
        raise ValueError(f"must begin with {schemes}")
    return parts


def livekit_url(url: str) -> str:
    """`url` if it may be a client's LiveKit server.

    Raises:
        ValueError: it may not; the message says why and does not repeat it.
    """
    parts = _split(url, ("wss", "https"), ("ws", "http"))
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment")
    return url


def webhook_url(url: str) -> str:
    """`url` if it may be where a client wants to be told. Raises like `livekit_url`."""
    _split(url, ("https",), ("http",))
    return url


def origin(text: str) -> str:
    """`text` if it is an origin as browsers send it. Raises like `livekit_url`."""
    parts = _split(text, ("https",), ("http",))
    default = parts.port is not None and parts.port == _DEFAULT_PORTS[parts.scheme]
    if parts.geturl() != f"{parts.scheme}://{parts.netloc}" or text != text.lower() or default:
        raise ValueError(
            "must be as browsers send it, such as https://app.example.com: no path, no slash at "
            "the end, no capitals, no default port"
        )
    return text


def is_plain(url: str) -> bool:
    """True when `url` is one without TLS, so on loopback."""
    return urlsplit(url).scheme in ("http", "ws")


def server(url: str) -> tuple[str, int]:
    """Host and port of `url`: two URLs with the same ones are one server."""
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _DEFAULT_PORTS[parts.scheme]
