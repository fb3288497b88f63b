"""Request one session of the self-test, and wait for its agent."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dispatcher.errors import UsherError
from dispatcher.selftest.deployment import Deployment

# The prefix of the test's rooms, by which an operator recognises them.
PREFIX: Final = "usher-selftest-"
_POLL_S: Final = 0.25
_ENDS: Final = frozenset({"joined", "failed", "cancelled", "ended"})


class Went(UsherError):
    """A check failed; the message says how."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """A session whose request was answered with 200, and how long the answer took (s)."""

    dispatch_id: str
    room: str
    identity: str
    server_url: str
    token: str
    answer_s: float


def fresh_room() -> str:
    """Return a unique room name."""
    return PREFIX + secrets.token_urlsafe(12)


async def ask_for(deployment: Deployment, *, agent: str, room: str = "", once: str = "") -> Session:
    """Request a session.

    Raises:
        Went: the request was not accepted.
        NoAnswer: the deployment did not answer.
    """
    answer = await deployment.send(room or fresh_room(), agent=agent, once=once)
    if answer.status != 200:
        raise Went(f"POST /api/v1/dispatches: {answer.status}: {answer.detail}")
    body = answer.body
    return Session(
        dispatch_id=str(body["dispatch_id"]),
        room=str(body["room_name"]),
        identity=str(body["participant_identity"]),
        server_url=str(body["server_url"]),
        token=str(body["participant_token"]),
        answer_s=answer.took_s,
    )


async def joined(
    deployment: Deployment, session: Session, *, within_s: float, poll_s: float = _POLL_S
) -> Mapping[str, Any]:
    """Return the session's record once its agent has joined.

    Raises:
        Went: the dispatch has ended, or has not joined in time.
        NoAnswer: the deployment did not answer.
    """
    until = time.monotonic() + within_s
    while True:
        answer = await deployment.record(session.dispatch_id)
        state = answer.body.get("state")
        if state == "joined":
            return answer.body
        why = answer.body.get("failure_message") or answer.body.get("failure_reason") or ""
        if state in _ENDS:
            raise Went(f"{session.dispatch_id} is {state}: {why}")
        if answer.status == 404:
            raise Went(f"{session.dispatch_id}: {answer.detail}")
        if time.monotonic() > until:
            told = f" ({why})" if why else ""
            raise Went(f"{session.dispatch_id} is {state}{told} after {within_s:.0f} s")
        await asyncio.sleep(poll_s)
