"""Read a LiveKit server's clock from the `Date` header of its answers."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

import aiohttp

from dispatcher.livekit.errors import classify


async def server_time(url: str, *, timeout_s: float) -> float | None:
    """Return a LiveKit server's time (whole seconds since the epoch); None without a `Date`.

    LiveKit's API has no call for the time. Raises like `LiveKitClient`.
    """
    http_url = "http" + url.removeprefix("ws") if url.startswith("ws") else url
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(http_url, allow_redirects=False) as response,
        ):
            date = response.headers.get("Date", "")
    except Exception as error:
        raise classify(error) from error
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None
