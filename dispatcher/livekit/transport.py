"""One LiveKit server's HTTP connections, with a limit of calls, a time-out and a circuit breaker.

The circuit breaker spares callers the waiting while the server does not answer.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Awaitable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Final, TypeVar

import aiohttp
from aiohttp import ClientHandlerType, ClientRequest, ClientResponse

from dispatcher.errors import (
    LiveKitAway,
    LiveKitError,
    PermanentLiveKitError,
    TransientLiveKitError,
)
from dispatcher.livekit.circuit_breaker import Breaker
from dispatcher.livekit.errors import classify

T = TypeVar("T")
logger = logging.getLogger(__name__)

# Calls take some 5 ms, so these serve thousands a second.
MAX_CALLS: Final = 32


async def refuse_redirects(request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
    """Raise an error for a redirect, which could lead into our own network; aiohttp's middleware.

    livekit-api has no option for it.
    """
    response = await handler(request)
    if 300 <= response.status < 400:
        response.close()
        raise PermanentLiveKitError(
            "the client's LiveKit URL answers with a redirect, which is not followed; "
            "correct LIVEKIT_URL"
        )
    return response


class LiveKitServer:
    """The connections of this process to one LiveKit server; belongs to one event loop."""

    def __init__(self, *, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(MAX_CALLS)
        self._breaker = Breaker()
        self.session = aiohttp.ClientSession(
            # One connection more than calls, for the heartbeat's probe.
            connector=aiohttp.TCPConnector(limit=MAX_CALLS + 1),
            middlewares=(refuse_redirects,),
        )

    @property
    def away(self) -> str:
        """Why a call would be refused now; empty when it would be made."""
        if not self._breaker.refuses(time.monotonic()):
            return ""
        return (
            f"LiveKit has answered none of the last {self._breaker.threshold} calls or more; "
            "it is asked again every few seconds, and for all sessions when it has answered"
        )

    async def call(self, request: Awaitable[T], *, probe: bool = False) -> T:
        """Make one call; raise a `LiveKitError` by `classify`, `LiveKitAway` if it is not made.

        A `probe` is made even with an open circuit, and its failure does not count.
        """
        begun: int | None = None
        asked = False
        try:
            # Not the session's time-out, which livekit-api disables: it gives aiohttp
            # `timeout=None`.
            async with asyncio.timeout(self._timeout_s), self._slot(probe):
                if not probe:
                    begun = self._breaker.begin(time.monotonic())
                    if begun is None:
                        raise LiveKitAway(self.away)
                asked = True
                answer = await request
        except (TimeoutError, aiohttp.ClientConnectionError) as error:
            if not asked:
                raise TransientLiveKitError(
                    f"LiveKit was not asked: {MAX_CALLS} calls wait for its answers",
                    outcome_unknown=False,
                ) from error
            if begun is not None and self._breaker.failed(begun, time.monotonic()):
                logger.warning("a LiveKit server answers no call: its circuit is open")
            raise classify(error) from error
        except LiveKitAway:
            raise
        except LiveKitError:
            self._has_answered()
            raise
        except Exception as error:
            # Any exception: livekit-api (1.2.2) raises AttributeError for an error body that is
            # JSON but no object, which gateways send. Still an answer.
            self._has_answered()
            raise classify(error) from error
        finally:
            if not asked and inspect.iscoroutine(request):
                request.close()  # avoids Python's "never awaited" warning
        self._has_answered()
        return answer

    def _slot(self, probe: bool) -> AbstractAsyncContextManager[None]:
        return nullcontext() if probe or self.away else self._slots

    def _has_answered(self) -> None:
        if self._breaker.answered():
            logger.info("a LiveKit server answers again: its circuit is closed")
