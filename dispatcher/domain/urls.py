"""Checks of the URLs in a client's entry.

No URL may carry a secret in the clear, and a webhook URL, which the client chooses, must not lead
into Usher's own network (SSRF). Each check returns an allowed URL as it is, and raises `ValueError`
for any other, with a message that says why and does not contain the URL.
"""

from __future__ import annotations

import contextlib
import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final
from urllib.parse import SplitResult, urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}
# The IPv6 range that IANA allocates to internet hosts. Outside are translators (64:ff9b::/96,
# ::ffff:0:0:0/96), old private space (fec0::/10), and unallocated ranges.
_UNICAST: Final = IPv6Network("2000::/3")
# Tunnels: their addresses contain an IPv4 address to which the tunnel's end connects. The last is
# documentation space that Python 3.11 does not know.
_TUNNELS: Final = (IPv6Network("2001::/32"), IPv6Network("2002::/16"), IPv6Network("3fff::/20"))
_ISATAP: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})  # RFC 5214: before the IPv4 address
_RELAYS: Final = IPv4Network("192.88.99.0/24")  # into the 6to4 tunnel


def is_public(address: str) -> bool:
    """Return True for a host's address on the public internet that contains no other address.

    `::ffff:0:0/96` is IPv4 in IPv6 notation and counts as its IPv4 address.

    Raises:
        ValueError: it is not an IP address.
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
    """Check the URL of a client's LiveKit server."""
    parts = _split(url, ("wss", "https"), ("ws", "http"))
    if parts.query or parts.fragment:
        raise ValueError("must not have a query or a fragment")
    return url


def own_livekit_url(url: str) -> str:
    """Check the URL of the LiveKit server of the operator's own environment.

    Unlike a client's it may lack TLS: the server may be on a private network.
    """
    _split(url, ("wss", "ws", "https", "http"), ())
    return url


def webhook_url(url: str, *, allow_private: bool) -> str:
    """Check the URL of a client's webhooks without a DNS look-up.

    `lifecycle/webhook_http.py` checks the address when it connects.

    Args:
        allow_private: for development: private addresses are allowed, and http to loopback.
    """
    host = _split(url, ("https",), ("http",) if allow_private else ()).hostname or ""
    if not host.isascii():
        # HTTP libraries read full-width digits as digits, so that a name would become an address.
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
    """Check that `text` is an origin as browsers send it."""
    parts = _split(text, ("https",), ("http",))
    default = parts.port is not None and parts.port == _DEFAULT_PORTS[parts.scheme]
    if parts.geturl() != f"{parts.scheme}://{parts.netloc}" or text != text.lower() or default:
        raise ValueError(
            "must be as browsers send it, such as https://app.example.com: no path, no slash at "
            "the end, no capitals, no default port"
        )
    return text


def is_plain(url: str) -> bool:
    """Return True when `url` has no TLS; it is on loopback then."""
    return urlsplit(url).scheme in ("http", "ws")


def server(url: str) -> tuple[str, int]:
    """Return host and port of `url`: two URLs with the same pair lead to one server.

    The host is in DNS form: without a dot at its end, in lower case, in ASCII.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    with contextlib.suppress(UnicodeError):  # too long for DNS: the host stays as it is
        host = host.encode("idna").decode().lower()
    return host.rstrip("."), parts.port or _DEFAULT_PORTS[parts.scheme]
