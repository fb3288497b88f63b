"""Which addresses may a client's entry name?

Nothing that would carry a secret in the clear, and for webhooks, which a client points where it
likes, nothing behind our own doors (SSRF).
"""

from __future__ import annotations

import contextlib
import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final
from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
# What IANA has given out for hosts of the IPv6 internet. Beyond it lie translators (64:ff9b::/96,
# ::ffff:0:0:0/96), old private space (fec0::/10), and what nobody has been given.
_UNICAST: Final = IPv6Network("2000::/3")
# Tunnels, whose addresses have an IPv4 address in them that the tunnel's end connects to, and what
# Python 3.11 does not know as documentation.
_TUNNELS: Final = (IPv6Network("2001::/32"), IPv6Network("2002::/16"), IPv6Network("3fff::/20"))
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})  # RFC 5214: in front of the IPv4 address
_RELAYS: Final = IPv4Network("192.88.99.0/24")  # into the 6to4 tunnel


def is_public(address: str) -> bool:
    """True for a host's address on the public internet that hides no other address.

    `::ffff:0:0/96` is IPv4 in IPv6's notation and counts as the IPv4 address that it is.

    Raises:
        ValueError: it is no address.
    """
    ip: IPv4Address | IPv6Address = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip
    if not ip.is_global or ip.is_multicast:
        return False
    if isinstance(ip, IPv4Address):
        return ip not in _RELAYS
    tunnelled = any(ip in network for network in _TUNNELS)
    return ip in _UNICAST and not tunnelled and (int(ip) >> 32 & 0xFFFF_FFFF) not in _ISATAP


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _split(url: str, secure: tuple[str, ...], plain: tuple[str, ...]) -> SplitResult:
    schemes = " or ".join(f"{scheme}://" for scheme in secure)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ValueError("must be a valid URL") from None
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


def own_livekit_url(url: str) -> str:
    """`url` if it may be the LiveKit server of the operator's own environment.

    Unlike a client's it may do without TLS: it may be reached by a private network.

    Raises:
        ValueError: it may not; the message says why and does not repeat it.
    """
    _split(url, ("wss", "ws", "https", "http"), ())
    return url


def webhook_url(url: str, *, allow_private: bool) -> str:
    """`url` if it may be where a client wants to be told, as far as that is seen without asking.

    What its name stands for is checked when it is connected to (`lifecycle/webhook_http.py`).

    Args:
        allow_private: development; private addresses will do, and http to loopback.

    Raises:
        ValueError: it may not; the message says why and does not repeat it.
    """
    host = _split(url, ("https",), ("http",) if allow_private else ()).hostname or ""
    if not host.isascii():
        # HTTP libraries take full-width digits for digits, so that a name becomes an address.
        raise ValueError("must have its host in ASCII (xn--...)")
    if not allow_private and _is_private(host):
        raise ValueError("must not be a private address, which only development allows")
    return url


def _is_private(host: str) -> bool:
    name = host.rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return not is_public(name)
    except ValueError:
        return False


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
    """Host and port of `url`: two URLs with the same ones are one server.

    The host is as DNS takes it: without the dot at its end, in small letters, in ASCII.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    with contextlib.suppress(UnicodeError):  # too long for DNS: it is what it is
        host = host.encode("idna").decode().lower()
    return host.rstrip("."), parts.port or _DEFAULT_PORTS[parts.scheme]
