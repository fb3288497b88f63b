"""An HTTP client for a deployment's API."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final

import aiohttp

from dispatcher.errors import UsherError

_TIMEOUT_S: Final = 10.0
_PATH: Final = "/api/v1/dispatches"
_LISTED: Final = 100


class NoAnswer(UsherError):
    """The deployment did not answer; the message has the request and the error."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """An HTTP answer, and how long it took (s)."""

    status: int
    took_s: float
    body: Mapping[str, Any]

    @property
    def detail(self) -> str:
        """The detail of an error answer."""
        return str(self.body.get("detail", "")) or f"status {self.status}"


class Deployment:
    """An HTTP client for the deployment at `url`, with the client key `key`."""

    def __init__(self, url: str, key: str) -> None:
        self._url = url.rstrip("/")
        self._key = {"Authorization": f"Bearer {key}"}
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=_TIMEOUT_S),
            connector=aiohttp.TCPConnector(limit=0),
        )

    async def __aenter__(self) -> Deployment:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Make one request.

        Raises:
            NoAnswer: no answer came.
        """
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

    async def record(self, dispatch_id: str) -> Answer:
        """Get a dispatch."""
        return await self.ask("GET", f"{_PATH}/{dispatch_id}", headers=self._key)

    async def cancel(self, dispatch_id: str) -> Answer:
        """Cancel a dispatch."""
        return await self.ask("DELETE", f"{_PATH}/{dispatch_id}", headers=self._key)

    async def knows_key(self) -> Answer:
        """Get the shortest list: its 401 says more about a wrong key than a failing session."""
        return await self.ask("GET", _PATH, params={"limit": "1"}, headers=self._key)

    async def newest(self, *, pages: int) -> list[Mapping[str, Any]]:
        """Return the client's newest dispatches."""
        found: list[Mapping[str, Any]] = []
        query = {"limit": str(_LISTED)}
        for _ in range(pages):
            answer = await self.ask("GET", _PATH, params=query, headers=self._key)
            found += answer.body.get("dispatches", [])
            cursor = answer.body.get("next_cursor")
            if not cursor:
                break
            query["cursor"] = cursor
        return found
