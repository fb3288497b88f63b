"""Who asks for sessions while hosts die, and what has become of each one?

They ask as a load balancer in front of two web hosts does: the next one where one refuses, is
silent or says 503, with the same `Idempotency-Key`. What became of it is LiveKit's own list and the
record, compared by a pure function.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import httpx
from livekit import api
from livekit.protocol.models import ParticipantInfo

from .deployment import Deployment

ENDPOINT = "/api/v1/dispatches"
# Of a host that is gone; of one that is there the answer comes within a second, which is checked.
_SILENT_AFTER_S = 2.0
_GIVES_UP_AFTER_S = 15.0
_LOOK_EVERY_S = 0.5
FINAL = frozenset({"joined", "failed", "ended", "cancelled"})


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A session that was answered with 200."""

    dispatch_id: str
    room: str
    status: str
    answered_in_s: float  # by the web that answered
    took_s: float  # with all that was tried before


@dataclass(frozen=True, kw_only=True)
class Seen:
    """One look at an accepted session: its record, if any, and LiveKit's list of agents."""

    state: str
    reason: str
    agent_identity: str
    container: str
    agents: tuple[str, ...]


def wrong(seen: Seen, alive: Collection[str]) -> str:
    """What is wrong with a session that should be at rest; empty: nothing.

    `alive` are the containers whose agents can be heard.
    """
    if seen.state not in FINAL:
        return f"not at rest: {seen.state or 'no record'}"
    if seen.state == "failed" and not seen.reason:
        return "failed without a reason"
    if seen.state != "joined":
        return f"{seen.state} with an agent in the room" if seen.agents else ""
    if not seen.agents:
        return "lost: joined, and no agent is there"
    if len(seen.agents) > 1:
        return f"doubled: {len(seen.agents)} agents"
    if seen.agents[0] != seen.agent_identity:
        return "another agent than the record's is there"
    return "" if seen.container in alive else "the agent's host is dead"


class Callers:
    """A stream of people, and the one who judges; belongs to one event loop."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._web = httpx.AsyncClient(
            headers={"Authorization": f"Bearer {deployment.api_key}"},
            timeout=httpx.Timeout(_SILENT_AFTER_S, connect=0.5),
            trust_env=False,
        )
        self._livekit = api.LiveKitAPI(
            deployment.livekit_url.replace("ws", "http", 1),
            deployment.livekit_key,
            deployment.livekit_secret,
            failover=False,
        )
        self._turn = 0
        self.accepted: list[Accepted] = []
        self.refused: list[str] = []

    async def aclose(self) -> None:
        await self._web.aclose()
        await self._livekit.aclose()  # type: ignore[no-untyped-call]  # livekit-api has no types

    async def stream(self, count: int, *, every_s: float) -> None:
        """So many sessions, one every so often, whatever has become of those before."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(count):
                tasks.create_task(self._ask())
                await asyncio.sleep(every_s)

    async def _ask(self) -> None:
        began = time.monotonic()
        key = uuid.uuid4().hex
        body = {"room_name": f"room-{key}", "participant_identity": "caller"}
        last: object = None
        while time.monotonic() - began < _GIVES_UP_AFTER_S:
            urls = self._deployment.web_urls()
            self._turn += 1
            asked = time.monotonic()
            try:
                response = await self._web.post(
                    urls[self._turn % len(urls)] + ENDPOINT,
                    json=body,
                    headers={"Idempotency-Key": key},
                )
            except httpx.TransportError as error:
                last = error
                continue
            now = time.monotonic()
            if response.status_code == 200:
                answer = response.json()
                self.accepted.append(
                    Accepted(
                        dispatch_id=answer["dispatch_id"],
                        room=answer["room_name"],
                        status=answer["status"],
                        answered_in_s=now - asked,
                        took_s=now - began,
                    )
                )
                return
            last = response.text
            await asyncio.sleep(0.2)
        self.refused.append(repr(last))

    async def _record(self, dispatch_id: str) -> dict[str, Any]:
        for url in self._deployment.web_urls(alive=True):
            try:
                response = await self._web.get(f"{url}{ENDPOINT}/{dispatch_id}")
            except httpx.TransportError:
                continue
            if response.status_code == 200:
                found: dict[str, Any] = response.json()
                return found
        return {}

    async def end_rooms(self) -> None:
        """Close the rooms of all that was accepted, so that their slots are free."""
        for each in self.accepted:
            with contextlib.suppress(api.TwirpError):
                await self._livekit.room.delete_room(api.DeleteRoomRequest(room=each.room))

    async def _agents(self, room: str) -> tuple[str, ...]:
        listed = await self._livekit.room.list_participants(api.ListParticipantsRequest(room=room))
        return tuple(
            participant.identity
            for participant in listed.participants
            if participant.kind == ParticipantInfo.AGENT
            and participant.state == ParticipantInfo.ACTIVE
        )

    async def look(self, each: Accepted) -> Seen:
        record = await self._record(each.dispatch_id)
        return Seen(
            state=record.get("state", ""),
            reason=record.get("failure_reason") or "",
            agent_identity=record.get("agent_identity") or "",
            container=record.get("container") or "",
            agents=await self._agents(each.room),
        )

    async def wrong(self, accepted: Sequence[Accepted]) -> dict[str, str]:
        """What is wrong with which, right now."""
        alive = {host.name for host in self._deployment.network.hosts.values() if host.alive}
        try:
            looks = await asyncio.gather(*(self.look(each) for each in accepted))
        except (aiohttp.ClientError, api.TwirpError, TimeoutError) as error:
            return {"all": f"LiveKit does not answer: {error}"}
        ids = [each.dispatch_id for each in accepted]
        found = {i: wrong(seen, alive) for i, seen in zip(ids, looks, strict=True)}
        return {i: words for i, words in found.items() if words}

    async def settle(self, *, within_s: float, rest_s: float = 2.0) -> Counter[str]:
        """Wait until nothing is wrong with any accepted session for a while; how they ended.

        Raises `AssertionError` with what is wrong after `within_s`.
        """
        until = time.monotonic() + within_s
        right_since: float | None = None
        while right_since is None or time.monotonic() - right_since < rest_s:
            found = await self.wrong(self.accepted)
            now = time.monotonic()
            right_since = None if found else right_since or now
            assert not found or now < until, f"after {within_s} s: {found}"
            await asyncio.sleep(_LOOK_EVERY_S)
        records = [await self._record(each.dispatch_id) for each in self.accepted]
        return Counter(
            f"failed: {each['failure_reason']}" if each["state"] == "failed" else each["state"]
            for each in records
        )
