"""Classify a LiveKit server's failures as permanent or transient."""

from __future__ import annotations

import aiohttp
from livekit import api

from dispatcher.errors import LiveKitError, PermanentLiveKitError, TransientLiveKitError


def classify(error: Exception) -> LiveKitError:
    """Return the error to raise for `error`; a transient one says if LiveKit may have acted."""
    if isinstance(error, api.TwirpError):
        return _classify_answer(error)
    if isinstance(error, aiohttp.ClientConnectorError):
        return TransientLiveKitError(
            f"LiveKit cannot be reached: {type(error).__name__}", outcome_unknown=False
        )
    if isinstance(error, aiohttp.InvalidURL):
        return PermanentLiveKitError("the client's LiveKit URL is not valid; correct LIVEKIT_URL")
    if isinstance(error, aiohttp.ContentTypeError) and error.status in (401, 403):
        return PermanentLiveKitError(f"a gateway before LiveKit answered {error.status}")
    no_answer = isinstance(error, (TimeoutError, aiohttp.ClientError))
    if not no_answer or isinstance(error, aiohttp.ContentTypeError):
        return TransientLiveKitError(
            f"LiveKit's answer cannot be read ({type(error).__name__}): a gateway before it, or "
            "another server, has answered",
            outcome_unknown=True,
        )
    return TransientLiveKitError(
        f"LiveKit did not answer: {type(error).__name__}", outcome_unknown=True
    )


def _classify_answer(error: api.TwirpError) -> LiveKitError:
    text = f"LiveKit answered {error.status} {error.code}: {error.message}"
    if error.status == 429:
        return TransientLiveKitError(text, outcome_unknown=False)
    if error.status >= 500 or error.status == 408:  # 408: Twirp's deadline_exceeded, canceled
        return TransientLiveKitError(text, outcome_unknown=True)
    if error.code == api.TwirpErrorCode.NOT_FOUND:
        return _room_is_lost(text)
    return PermanentLiveKitError(text)


def _room_is_lost(what: str) -> TransientLiveKitError:
    """Return the error for a room that LiveKit does not find, although a person may be in it.

    It was deleted while the person joined: until anybody joins again no agent can be brought there,
    and no call ends it (docs/decisions/0137-a-room-that-livekit-has-lost.md).
    """
    return TransientLiveKitError(
        f"{what}: the room was deleted while somebody was joining it, and LiveKit has lost them; "
        "whoever is in it has to leave it and join again",
        outcome_unknown=False,
    )
