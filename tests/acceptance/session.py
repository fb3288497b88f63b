"""How does a test use Usher the way its users do, and count agents without asking Usher?"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import httpx
from livekit import api
from livekit.protocol.models import ParticipantInfo

from dispatcher.ledger.client import Ledger
from dispatcher.ledger.step import Step
from dispatcher.settings import CommonSettings
from tests.support.stacks import RunningStack

T = TypeVar("T")

ENDPOINT = "/api/v1/dispatches"
POLL_S = 0.05


def wait_for(what: str, look: Callable[[], T | None], *, within_s: float) -> T:
    """What `look` gives as soon as it gives something; fails after `within_s`."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(POLL_S)
    raise AssertionError(f"not within {within_s} s: {what}")


def wait_ready(caller: Caller, *, within_s: float = 60) -> None:
    """Return when nothing is missing; a web that is just being started again is not ready yet."""

    def look() -> bool | None:
        try:
            response = caller.http.get("/readyz")
        except httpx.TransportError:
            return None
        return True if response.json()["not_ready"] == [] else None

    wait_for("everything ready", look, within_s=within_s)


def run_step(stack: RunningStack, step: Step[T]) -> T:
    """What the stack's ledger answers to one step."""
    settings = {"REDIS_URL": stack.redis_url, "USHER_REDIS_TIMEOUT_S": 5}
    store = Ledger(CommonSettings.model_validate(settings))
    try:
        return store.run(step)
    finally:
        store.close()


class Caller:
    """A customer's backend: it has an API key and speaks HTTP."""

    def __init__(self, stack: RunningStack, api_key: str | None = None) -> None:
        self._stack = stack
        self.http = httpx.Client(
            base_url=stack.web_url,
            headers={"Authorization": f"Bearer {api_key or stack.api_key}"},
            timeout=10,
            trust_env=False,
        )

    def post(self, **body: object) -> dict[str, Any]:
        """Ask for a session; the answer of a 200."""
        response = self.http.post(ENDPOINT, json=body)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def record(self, dispatch_id: str) -> dict[str, Any]:
        """The record of one dispatch; asked for again where the ledger had no time, as told to."""

        def look() -> httpx.Response | None:
            response = self.http.get(f"{ENDPOINT}/{dispatch_id}")
            return response if response.status_code != 503 else None

        response = wait_for(f"the ledger's answer about {dispatch_id}", look, within_s=30)
        assert response.status_code == 200, response.text
        record: dict[str, Any] = response.json()
        return record

    def send_again(self, dispatch_id: str, **headers: str) -> httpx.Response:
        """The answer to a redispatch; one that was asked for just now is asked for again."""
        path = f"{ENDPOINT}/{dispatch_id}/redispatch"
        response = self.http.post(path, headers=headers)
        if response.status_code == 429:
            time.sleep(int(response.headers["retry-after"]))
            response = self.http.post(path, headers=headers)
        return response

    def wait_for_state(self, dispatch_id: str, *states: str, within_s: float) -> dict[str, Any]:
        """The record as soon as it is in one of `states`."""

        def look() -> dict[str, Any] | None:
            record = self.record(dispatch_id)
            return record if record["state"] in states else None

        return wait_for(f"{dispatch_id} in {states}", look, within_s=within_s)

    def wait_until_agent_said_so(self, dispatch_id: str, *, within_s: float = 30) -> dict[str, Any]:
        """The record once the agent's own word that it is connected is in it.

        That is no condition of `joined`: LiveKit's webhook may have been quicker.
        """

        def look() -> dict[str, Any] | None:
            record = self.record(dispatch_id)
            said = any(event["event"] == "agent_connected" for event in record["timeline"])
            return record if said else None

        return wait_for(f"{dispatch_id}: the agent's own word", look, within_s=within_s)


def post_at_once(
    stack: RunningStack, count: int, **body: object
) -> list[tuple[float, dict[str, Any]]]:
    """Ask for so many sessions at once; how long (s) each answer took, and what it was."""
    program = [sys.executable, str(Path(__file__).with_name("burst.py"))]
    ran = subprocess.run(
        [*program, stack.web_url + ENDPOINT, stack.api_key, str(count), json.dumps(body)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    answers = json.loads(ran.stdout)
    assert [status for _, status, _ in answers] == [200] * count
    return [(took_s, answer) for took_s, _, answer in answers]


async def _agents(stack: RunningStack, rooms: Iterable[str]) -> dict[str, list[str]]:
    found = {}
    async with api.LiveKitAPI(
        stack.livekit_url, stack.livekit_api_key, stack.livekit_api_secret, failover=False
    ) as livekit:
        for room in rooms:
            listed = await livekit.room.list_participants(api.ListParticipantsRequest(room=room))
            found[room] = [
                participant.identity
                for participant in listed.participants
                if participant.kind == ParticipantInfo.AGENT
                and participant.state == ParticipantInfo.ACTIVE
            ]
    return found


def active_agents(stack: RunningStack, *rooms: str) -> dict[str, list[str]]:
    """Identities of the ACTIVE agents of each room, by LiveKit's own participant list."""
    return asyncio.run(_agents(stack, rooms))


async def _delete(stack: RunningStack, rooms: Iterable[str]) -> None:
    async with api.LiveKitAPI(
        stack.livekit_url, stack.livekit_api_key, stack.livekit_api_secret, failover=False
    ) as livekit:
        for room in rooms:
            await livekit.room.delete_room(api.DeleteRoomRequest(room=room))


async def _make(stack: RunningStack, room: str, departure_timeout_s: int) -> None:
    async with api.LiveKitAPI(
        stack.livekit_url, stack.livekit_api_key, stack.livekit_api_secret, failover=False
    ) as livekit:
        await livekit.room.create_room(
            api.CreateRoomRequest(name=room, departure_timeout=departure_timeout_s)
        )


def make_room(stack: RunningStack, room: str, *, departure_timeout_s: int = 20) -> None:
    """An empty room, as a customer's backend may have made it.

    It ends so long after its last person has left.
    """
    asyncio.run(_make(stack, room, departure_timeout_s))


def end_rooms(stack: RunningStack, *rooms: str) -> None:
    """Close rooms once their agents are there, so that no dispatch is left on its way."""
    wait_for(
        f"an agent in each of {rooms}",
        lambda: True if all(active_agents(stack, *rooms).values()) else None,
        within_s=30,
    )
    # LiveKit lists an agent before the ledger knows of it. A room closed between the two would be
    # sent another agent, which takes a slot away from the tests that follow.
    wait_for(f"{rooms} joined", lambda: _none_on_its_way(stack, rooms) or None, within_s=30)
    asyncio.run(_delete(stack, rooms))


def delete_room(stack: RunningStack, room: str) -> None:
    """Close a room as it is."""
    asyncio.run(_delete(stack, (room,)))


def _none_on_its_way(stack: RunningStack, rooms: Iterable[str]) -> bool:
    with (caller := Caller(stack)).http:
        response = caller.http.get(ENDPOINT, params={"limit": 100})
    if response.status_code == 401:  # the stack's clients have other keys
        return True
    assert response.status_code == 200, response.text
    ended = {"joined", "ended", "failed", "cancelled"}
    found = response.json()["dispatches"]
    return not [each for each in found if each["room_name"] in rooms and each["state"] not in ended]
