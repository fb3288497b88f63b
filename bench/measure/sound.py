"""The time from a click in a real Chromium until the agent's greeting is heard.

The page (`bench/page/`) has LiveKit's SDK alone. At the click it asks Usher for a token, or has one
that names the agent (token dispatch), connects, and listens to the agent's track. The agents of all
contenders greet alike, with a tone (`bench/greeting.py`). The browser and its profile are new for
each session, and everything is loaded before the click.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from aiohttp import web
from playwright.async_api import async_playwright

from bench import PROJECT_ROOT, BenchError
from bench.caller import token_with_agent
from bench.contenders import CONTENDERS, USHERS, Contender
from bench.procfiles import USHER_KEYS, Kind
from bench.sessions import Session
from bench.size import Size
from bench.testbed import Testbed
from bench.units import Unit, rotated
from tests.support.chromium import FAKE_MICROPHONE, FLAGS, find_chromium

NAME: Final = "sound"
NAMES: Final = ("token", *USHERS)
_HEARD_WITHIN_S: Final = 30.0


def missing() -> str:
    """Return what this machine lacks for this measurement, or nothing."""
    return "" if find_chromium() else "there is no Chromium (Debian: apt-get install chromium)"


def units(size: Size) -> list[Unit]:
    """One session of each contender in each round."""
    return [
        Unit(
            measure=NAME,
            kind=Kind.SOUND,
            key=f"{number}/{name}",
            contender=name,
            takes_s=6,
        )
        for number in range(size.sound_rounds)
        for name in rotated(NAMES, number)
    ]


async def run(bed: Testbed, unit: Unit) -> dict[str, Any]:
    """One click, on a machine that has come to rest."""
    contender = CONTENDERS[unit.contender]
    [room] = bed.rooms(contender, 1)
    app = web.Application()
    app.router.add_static("/vendor", PROJECT_ROOT / "web" / "pages" / "client" / "vendor")
    app.router.add_static("/", PROJECT_ROOT / "bench" / "page")
    server = web.AppRunner(app, access_log=None)
    await server.setup()
    try:
        await web.TCPSite(server, "127.0.0.1", bed.plan.ports["page"]).start()
        times, busy = await _click(bed, _wanted(bed, contender, room))
        session = Session(room=room, t0_ms=0.0, dispatch_id=times.pop("dispatch_id"))
        await bed.see(contender, [session])
    finally:
        await bed.end([room])
        await server.cleanup()
    rounded = {name: round(value, 1) for name, value in times.items()}
    return {"busy_percent": busy, "agents": session.agents, **rounded}


def _wanted(bed: Testbed, contender: Contender, room: str) -> dict[str, str]:
    """Return what the page needs to get a token: see `click.js`."""
    if contender.placement:
        key = USHER_KEYS["publishable"]
        return {"endpoint": bed.url(contender), "key": key, "room": room}
    token = token_with_agent(room, bed.stack.livekit_api_key, bed.stack.livekit_api_secret)
    return {"url": bed.stack.livekit_url, "token": token}


async def _click(bed: Testbed, wanted: dict[str, str]) -> tuple[dict[str, Any], float]:
    """Return the page's times, and how busy the processors were before the click (percent)."""
    chromium = find_chromium()
    if chromium is None:
        raise BenchError(missing())
    async with asyncio.timeout(2 * _HEARD_WITHIN_S), async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=chromium, args=[*FLAGS, *FAKE_MICROPHONE]
        )
        try:
            page = await browser.new_page()
            await page.goto(f"http://127.0.0.1:{bed.plan.ports['page']}/index.html")
            await page.evaluate("wanted => { window.wanted = wanted }", wanted)
            busy = await bed.settle(within_s=5)
            await page.click("button")
            async with asyncio.timeout(_HEARD_WITHIN_S):
                times: dict[str, Any] = await page.evaluate("window.result")
        finally:
            await browser.close()
    return times, busy
