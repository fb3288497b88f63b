"""An HTTP client for a deployment's API."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import aiohttp

from dispatcher.errors import UsherError
from dispatcher.selftest.results import Failed

# The prefix of the test's rooms, by which an operator recognises them.
PREFIX: Final = "usher-selftest-"
POLL_S: Final = 0.25
_TIMEOUT_S: Final = 10.0
_PATH: Final = "/api/v1/dispatches"
_LISTED: Final = 100
_ENDS: Final = frozenset({"failed", "cancelled", "ended"})

Record = Mapping[str, Any]


class NoAnswer(UsherError):
    """The deployment did not answer; the message has the request and the error."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP answer, and how long it took (s)."""

    status: int
    took_s: float
    body: Record

    @property
    def detail(self) -> str:
        """The detail of an error answer."""
        return str(self.body.get("detail", "")) or f"status {self.status}"


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


class Deployment:
    """An HTTP client for the deployment at `url`, with the client key `key`.

    Each method raises `NoAnswer` when the deployment does not answer.
    """

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        self._key = {"Authorization": f"Bearer {key}"}
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            connector=aiohttp.TCPConnector(limit=0),
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._session.close()

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Make one request."""
        began = time.monotonic()
        try:
            async with self._session.request(
                method, self._url + path, allow_redirects=False, **options
            ) as response:
                text = await response.text()
                is_json = "json" in response.content_type
                body = await response.json(content_type=None) if is_json else {"text": text}
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise NoAnswer(f"{method} {self._url}{path}: {type(error).__name__}") from None
        took_s = time.monotonic() - began
        return Answer(status=response.status, took_s=took_s, body=body)

    async def send(self, room: str, *, agent: str = "", once: str = "") -> Answer:
        """Ask for a session; `once` is an `Idempotency-Key`."""
        body: dict[str, Any] = {"room_name": room, "participant_name": "usher selftest"}
        if agent:
            body["room_config"] = {"agents": [{"agent_name": agent}]}
        headers = {"Idempotency-Key": once} if once else {}
        return await self.ask("POST", _PATH, json=body, headers=self._key | headers)

    async def session(self, room: str, *, agent: str, once: str) -> Session:
        """Ask for a session, and return it.

        Raises:
            Failed: the request was not accepted.
        """
        answer = await self.send(room, agent=agent, once=once)
        if answer.status != 200:
            raise Failed(f"POST {_PATH}: {answer.status}: {answer.detail}")
        body = answer.body
        return Session(
            dispatch_id=str(body["dispatch_id"]),
            room=str(body["room_name"]),
            identity=str(body["participant_identity"]),
            server_url=str(body["server_url"]),
            token=str(body["participant_token"]),
            answer_s=answer.took_s,
        )

    async def record(self, dispatch_id: str) -> Answer:
        """Get a dispatch."""
        return await self.ask("GET", f"{_PATH}/{dispatch_id}", headers=self._key)

    async def joined(self, dispatch_id: str, *, within_s: float, poll_s: float = POLL_S) -> Record:
        """Return a dispatch's record once its agent has joined.

        Raises:
            Failed: the dispatch has ended, or has not joined in time.
        """
        until = time.monotonic() + within_s
        while True:
            answer = await self.record(dispatch_id)
            state = answer.body.get("state")
            if state == "joined":
                return answer.body
            why = answer.body.get("failure_message") or answer.body.get("failure_reason") or ""
            if state in _ENDS:
                raise Failed(f"{dispatch_id} is {state}: {why}")
            if answer.status == 404:
                raise Failed(f"{dispatch_id}: {answer.detail}")
            if time.monotonic() > until:
                told = f" ({why})" if why else ""
                raise Failed(f"{dispatch_id} is {state}{told} after {within_s:.0f} s")
            await asyncio.sleep(poll_s)

    async def cancel(self, dispatch_id: str) -> Answer:
        """Cancel a dispatch."""
        return await self.ask("DELETE", f"{_PATH}/{dispatch_id}", headers=self._key)

    async def knows_key(self) -> Answer:
        """Get the shortest list: its 401 says more about a wrong key than a failing session."""
        return await self.ask("GET", _PATH, params={"limit": "1"}, headers=self._key)

    async def newest(self, *, pages: int) -> list[Record]:
        """Return the client's newest dispatches."""
        found: list[Record] = []
        query = {"limit": str(_LISTED)}
        for _ in range(pages):
            answer = await self.ask("GET", _PATH, params=query, headers=self._key)
            found += answer.body.get("dispatches", [])
            cursor = answer.body.get("next_cursor")
            if not cursor:
                break
            query["cursor"] = cursor
        return found
