"""The caller that asks for sessions: a small process, so that the harness's pauses do not delay it.

`python -m bench.caller KIND` reads a line of JSON for each session, `{"room": ...}`, sends the
request at once, and writes one line with the answer: `{"room", "t0_ms", "took_s", "error", "id"}`.
A line `{"loop_s": 10, "connections": 16, "prefix": ...}` sends requests in a loop instead, over
kept connections, until the time is up or `count` have been sent; its one answer has all times.

KIND is `http` (POST to BENCH_URL with BENCH_KEY, a connection for each), `direct` (CreateDispatch
with a kept client, as in a backend) or `token` (a person joins with a token that names the agent:
only the signalling of a join, which creates the room, without media, so it costs the machine
little).
"""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import os
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
from livekit import api

AGENT = "bench-plain"
_Ask = Callable[[str], Awaitable[str]]  # room -> the dispatch's id, or nothing


def _session(*, kept: bool) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, force_close=not kept),
        headers={"Authorization": f"Bearer {os.environ['BENCH_KEY']}"},
        timeout=aiohttp.ClientTimeout(total=30),
    )


def _by(http: aiohttp.ClientSession) -> _Ask:
    async def ask(room: str) -> str:
        async with http.post(os.environ["BENCH_URL"], json={"room_name": room}) as response:
            body = await response.json()
            if response.status != 200:
                raise RuntimeError(f"status {response.status}: {body.get('title', '')}")
            return str(body.get("dispatch_id", ""))

    return ask


async def _http() -> _Ask:
    return _by(_session(kept=False))


async def _direct() -> _Ask:
    livekit = api.LiveKitAPI(os.environ["LIVEKIT_URL"], failover=False)

    async def ask(room: str) -> str:
        request = api.CreateAgentDispatchRequest(agent_name=AGENT, room=room)
        return (await livekit.agent_dispatch.create_dispatch(request)).id

    return ask


def token_with_agent(room: str, api_key: str = "", api_secret: str = "") -> str:
    """Make a person's token that names the agent; the key and secret are else the environment's."""
    agents = [api.RoomAgentDispatch(agent_name=AGENT)]
    return (
        api.AccessToken(api_key or None, api_secret or None)
        .with_identity(f"user-{room}")
        .with_grants(api.VideoGrants(room_join=True, room=room))
        .with_room_config(api.RoomConfiguration(agents=agents))
        .to_jwt()
    )


async def _token() -> _Ask:
    http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
    people: set[asyncio.Task[None]] = set()

    async def stay(socket: aiohttp.ClientWebSocketResponse) -> None:
        async for _ in socket:
            pass

    async def ask(room: str) -> str:
        token = token_with_agent(room)
        query = {"access_token": token, "auto_subscribe": "1", "protocol": "15", "sdk": "js"}
        socket = await http.ws_connect(f"{os.environ['LIVEKIT_URL']}/rtc", params=query)
        await socket.receive()  # the answer to the join
        person = asyncio.create_task(stay(socket))
        people.add(person)
        person.add_done_callback(people.discard)
        return ""

    return ask


async def _one(ask: _Ask, room: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"room": room, "t0_ms": time.time() * 1000, "error": "", "id": ""}
    started = time.perf_counter()
    try:
        answer["id"] = await ask(room)
    except Exception as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    answer["took_s"] = time.perf_counter() - started
    return answer


async def _loop(ask: _Ask, wanted: dict[str, Any]) -> dict[str, Any]:
    """Ask with so many connections, each again as soon as it is answered."""
    numbers = itertools.count()
    rooms: list[tuple[str, str]] = []
    took_s: list[float] = []
    errors: list[str] = []
    until = time.perf_counter() + wanted["loop_s"]
    most = wanted.get("count") or sys.maxsize
    started = time.perf_counter()

    async def connection() -> None:
        while time.perf_counter() < until and (number := next(numbers)) < most:
            answer = await _one(ask, f"{wanted['prefix']}{number}")
            took_s.append(answer["took_s"])
            if answer["error"]:
                errors.append(answer["error"])
            else:
                rooms.append((answer["room"], answer["id"]))

    await asyncio.gather(*(connection() for _ in range(wanted["connections"])))
    lasted_s = time.perf_counter() - started
    return {"rooms": rooms, "took_s": took_s, "errors": errors, "lasted_s": lasted_s}


async def main(kind: str) -> None:
    """Serve standard input until it ends."""
    ask = {"http": _http, "direct": _direct, "token": _token}[kind]
    asking = await ask()
    reader = asyncio.StreamReader(limit=2**20)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    tasks: set[asyncio.Task[None]] = set()

    async def serve(wanted: dict[str, Any]) -> None:
        if "loop_s" in wanted:
            async with _session(kept=True) as http:
                answer = await _loop(_by(http), wanted)
        else:
            answer = await _one(asking, wanted["room"])
        print(json.dumps(answer), flush=True)

    gc.freeze()
    gc.disable()
    print("ready", flush=True)
    while line := await reader.readline():
        task = asyncio.create_task(serve(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
