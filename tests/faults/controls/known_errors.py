"""Workers that know only the errors that livekit-api promises, and guard nothing else.

`celery -A tests.faults.controls.known_errors worker`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import aiohttp
from livekit import api

from dispatcher.celery import app as app
from dispatcher.errors import LiveKitError
from dispatcher.ledger.guarding import Guard
from dispatcher.livekit import errors as livekit_errors
from dispatcher.livekit.client import LiveKitClient


async def call(self: LiveKitClient, request: Awaitable[Any], *, probe: bool = False) -> Any:
    try:
        return await self._server.call(request, probe=probe)
    except LiveKitError:
        raise
    except (api.TwirpError, aiohttp.ClientError, TimeoutError) as error:
        raise livekit_errors.classify(error) from error


@contextlib.asynccontextmanager
async def unguarded(_: Guard, work: str, *, of: str = "") -> AsyncIterator[None]:
    yield


assert hasattr(LiveKitClient, "_call")
assert hasattr(Guard, "one")
LiveKitClient._call = call  # type: ignore[method-assign]
Guard.one = unguarded  # type: ignore[method-assign]
