"""Workers that know only the errors that livekit-api promises, and guard nothing else.

`celery -A tests.faults.controls.known_errors worker`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import aiohttp
from livekit import api

from dispatcher.celery import app as app
from dispatcher.errors import LiveKitError
from dispatcher.ledger.guarding import Guard
from dispatcher.livekit import errors as livekit_errors
from dispatcher.livekit import transport


def classify(error: Exception) -> LiveKitError:
    if isinstance(error, (api.TwirpError, aiohttp.ClientError, TimeoutError)):
        return livekit_errors.classify(error)
    raise error


@contextlib.asynccontextmanager
async def unguarded(_: Guard, work: str, *, of: str = "") -> AsyncIterator[None]:
    yield


assert hasattr(transport, "classify")
assert hasattr(Guard, "one")
transport.classify = classify
Guard.one = unguarded  # type: ignore[method-assign]
