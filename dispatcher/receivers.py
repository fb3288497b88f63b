"""How is something posted to a server that a client has named, and to nothing inside?

The address is a client's choice, so it must not lead to anything behind our own doors (SSRF): only
https, only addresses of the public internet, checked when they are connected to, no redirects, and
nothing of the answer but its status is read.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from typing import Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from dispatcher.errors import UsherError

TIMEOUT_S: Final = 5.0
MAX_CALLS: Final = 16

_NAT64: Final = IPv6Network("64:ff9b::/96")


class NotDelivered(UsherError):
    """The receiver did not take it; the message says why and holds nothing of the URL."""

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


class Refused(OSError):
    """The address is none that may be connected to."""


def is_public(address: str) -> bool:
    """True for an address of the public internet, whatever notation hides another one in it."""
    ip: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(ip, IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (None, None))[1]
        if inner is None and ip in _NAT64:
            inner = IPv4Address(int(ip) & 0xFFFF_FFFF)
        ip = inner or ip
    return ip.is_global and not ip.is_multicast


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def check_url(url: str, *, allow_private: bool) -> None:
    """See whether events may be sent to `url` at all, as far as that is seen without looking it up.

    Raises:
        NotDelivered: they may not.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        raise NotDelivered("the client's webhook_url is not valid", for_good=True) from None
    if not host or parts.username is not None:
        raise NotDelivered("the client's webhook_url is not valid", for_good=True)
    if parts.scheme == "https" or (parts.scheme == "http" and allow_private and _is_loopback(host)):
        try:
            literal_is_private = not is_public(host)
        except ValueError:  # a name; the resolver checks what it stands for
            return
        if literal_is_private and not allow_private:
            raise NotDelivered("the client's webhook_url is no public address", for_good=True)
        return
    raise NotDelivered("the client's webhook_url is not https", for_good=True)


class CheckedResolver(AbstractResolver):
    """Resolves names, and refuses those with any private address; what it gives is connected to."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._resolver = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Every address of `host`. Raises `Refused`."""
        found = await self._resolver.resolve(host, port, family)
        if not self._allow_private and not all(is_public(each["host"]) for each in found):
            raise Refused("a private address")
        return found

    async def close(self) -> None:
        """Nothing is open."""


class Receivers:
    """Posts to clients' own servers; belongs to one event loop."""

    def __init__(self, *, allow_private: bool) -> None:
        self._allow_private = allow_private
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=CheckedResolver(allow_private=allow_private),
                use_dns_cache=False,
                limit=MAX_CALLS,
            ),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers={"User-Agent": "usher-webhooks"},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def post(self, url: str, body: str, headers: Mapping[str, str]) -> None:
        """Deliver `body`.

        Raises:
            NotDelivered: it was not answered with a 2xx.
        """
        check_url(url, allow_private=self._allow_private)
        try:
            async with self._session.post(
                url, data=body.encode(), headers=headers, allow_redirects=False
            ) as response:
                status = response.status
        except aiohttp.ClientConnectorError as error:
            if isinstance(error.os_error, Refused):
                raise NotDelivered("the client's webhook_url is no public address") from None
            raise NotDelivered(f"cannot be reached: {type(error).__name__}") from None
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise NotDelivered(f"did not answer: {type(error).__name__}") from None
        if not 200 <= status < 300:
            # 410: the receiver is gone and wants no more (Standard Webhooks).
            raise NotDelivered(f"answered {status}", for_good=status == 410)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()
