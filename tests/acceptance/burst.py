"""A caller in a process of its own: sends so many requests at once and prints how each went.

Not in the test's process, whose garbage collector alone takes longer than an answer may.
Usage: python burst.py URL API_KEY COUNT; prints a JSON list of [seconds, status, room].
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time

import aiohttp


async def burst(url: str, api_key: str, count: int) -> list[tuple[float, int, str]]:
    headers = {"Authorization": f"Bearer {api_key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def post() -> tuple[float, int, str]:
            started = time.perf_counter()
            async with session.post(url, json={}) as response:
                body = await response.json()
                return time.perf_counter() - started, response.status, body["room_name"]

        gc.disable()
        return await asyncio.gather(*(post() for _ in range(count)))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(burst(sys.argv[1], sys.argv[2], int(sys.argv[3])))))
