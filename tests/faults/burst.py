"""Callers in a process of their own: so many requests at once, and how each went.

Usage: python burst.py URL API_KEY COUNT [ROOM]; prints a JSON list of [seconds, status, body].
With ROOM all ask for that one. What got no answer at all has the status 0.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import aiohttp


async def burst(url: str, api_key: str, bodies: list[dict[str, str]]) -> list[Any]:
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers={"Authorization": f"Bearer {api_key}"},
        timeout=timeout,
    ) as session:

        async def post(body: dict[str, str]) -> tuple[float, int, Any]:
            started = time.perf_counter()
            try:
                async with session.post(url, json=body) as response:
                    answer = await response.json(content_type=None)
                    return time.perf_counter() - started, response.status, answer
            except (aiohttp.ClientError, TimeoutError) as error:
                return time.perf_counter() - started, 0, type(error).__name__

        return await asyncio.gather(*(post(body) for body in bodies))


if __name__ == "__main__":
    url, api_key, count = sys.argv[1:4]
    body = {"room_name": sys.argv[4]} if len(sys.argv) > 4 else {}
    print(json.dumps(asyncio.run(burst(url, api_key, [body] * int(count)))))
