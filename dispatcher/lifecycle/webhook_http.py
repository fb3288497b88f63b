"""Post webhooks over HTTP, to public addresses only.

The client chooses the address, so it must not lead into our own network (SSRF): only https
(`urls.webhook_url`, when the client is read), only public addresses, no redirects, and only the
status of the answer is read. Each address is checked as it is connected to: a look-up before that
could get another answer.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp import AddrInfoType

from dispatcher.domain import urls
from dispatcher.errors import UsherError

TIMEOUT_S: Final = 5.0
MAX_CALLS: Final = 16


class NotDelivered(UsherError):
    """The receiver did not take the event; the message says why and has nothing of the URL."""

    def __init__(self, message: str, *, for_good: bool = False) -> None:
        super().__init__(message)
        self.for_good = for_good


class Refused(OSError):
    """The address is not public."""


def public_socket(address: AddrInfoType) -> socket.socket:
    """Return a socket for a connection to `address`; raise `Refused` if that is not public."""
    family, kind, protocol, _, where = address
    if not urls.is_public(str(where[0])):
        raise Refused("a private address")
    return socket.socket(family, kind, protocol)


class Receivers:
    """An HTTP session to the clients' webhook receivers; belongs to one event loop."""

    def __init__(self, *, allow_private: bool) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                socket_factory=None if allow_private else public_socket, limit=MAX_CALLS
            ),
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers={"User-Agent": "usher-webhooks"},
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
        )

    async def post(self, url: str, body: str, headers: Mapping[str, str]) -> None:
        """Post `body`; raise `NotDelivered` if the answer is no 2xx."""
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
