"""A caller in a process of its own: sends so many requests at once and prints how each went.

Not in the test's process, whose garbage collector alone takes longer than an answer may.
Usage: python burst.py URL API_KEY COUNT [BODY]; prints a JSON list of [seconds, status, answer].
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from typing import Any

import aiohttp


async def burst(
    url: str, api_key: str, count: int, asked: dict[str, Any]
) -> list[tuple[float, int, dict[str, Any]]]:
    headers = {"Authorization": f"Bearer {api_key}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

        async def post() -> tuple[float, int, dict[str, Any]]:
            started = time.perf_counter()
            async with session.post(url, json=asked) as response:
                answer = await response.json()
                return time.perf_counter() - started, response.status, answer

        gc.disable()
        return await asyncio.gather(*(post() for _ in range(count)))


if __name__ == "__main__":
    asked = json.loads(sys.argv[4]) if len(sys.argv) > 4 else {}
    print(json.dumps(asyncio.run(burst(sys.argv[1], sys.argv[2], int(sys.argv[3]), asked))))
