"""What do the pages look like? `make screenshots` takes them anew into docs/screenshots/.

A stack of its own, real sessions with different ends, and Chromium: each page in light, in dark and
on a phone. Look at every picture before it is committed.
"""

from __future__ import annotations

import asyncio
import base64
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
from playwright.async_api import Browser, Page, async_playwright, expect

from devstack import PROJECT_ROOT
from tests.support.chromium import FLAGS, find_chromium
from tests.support.stacks import RunningStack, running_stack

FOLDER: Final = PROJECT_ROOT / "docs" / "screenshots"
SMALL_PNG: Final = (Path(__file__).parent / "small_png.js").read_text()
DESKTOP: Final = {"width": 1200, "height": 800}
LOOKS: Final[dict[str, dict[str, Any]]] = {
    "light": {"viewport": DESKTOP, "color_scheme": "light"},
    "dark": {"viewport": DESKTOP, "color_scheme": "dark"},
    "phone": {
        "viewport": {"width": 360, "height": 740},
        "color_scheme": "light",
        "is_mobile": True,
        "has_touch": True,
    },
}
# Longer pages are cut: nobody looks at more of a picture.
MOST_PX: Final = {"light": 1900, "dark": 1900, "phone": 2400}
SLOTS, SESSIONS, STAYING = 12, 50, 7
NOBODYS, DECLINING = "agent-that-is-not-there", "agent-that-declines"
ENVIRON: Final = {
    "USHER_AGENT_NAMES": f"session-agent-rag,{DECLINING},{NOBODYS}",
    "USHER_AGENT_SLOTS": str(SLOTS),
    "USHER_DEADLINE_S": "15",
    "USHER_AGENT_EXECUTOR": "thread",
}
WITHIN_MS: Final = 60_000

Prepare = Callable[[Page], Awaitable[None]]


@dataclass
class Camera:
    """Takes pictures of one stack's pages."""

    browser: Browser
    stack: RunningStack

    async def take(
        self,
        name: str,
        path: str,
        prepare: Prepare,
        *,
        base: str = "",
        auth: bool = False,
        after: Callable[[], None] = lambda: None,
    ) -> None:
        """`name`-light.png, `name`-dark.png and `name`-phone.png of the page at `path`."""
        for look, screen in LOOKS.items():
            context = await self.browser.new_context(
                **screen,
                http_credentials={
                    "username": self.stack.flower_user,
                    "password": self.stack.flower_password,
                }
                if auth
                else None,
            )
            page = await context.new_page()
            page.set_default_timeout(WITHIN_MS)
            await page.goto(f"{base or self.stack.web_url}{path}")
            await prepare(page)
            await self._save(page, f"{name}-{look}", MOST_PX[look])
            await context.close()
            after()

    async def _save(self, page: Page, name: str, most_px: int) -> None:
        height = await page.evaluate("document.documentElement.scrollHeight")
        width = page.viewport_size["width"] if page.viewport_size else DESKTOP["width"]
        picture = await page.screenshot(
            full_page=True,
            animations="disabled",
            clip={"x": 0, "y": 0, "width": width, "height": min(height, most_px)},
        )
        blank = await page.context.new_page()
        small = base64.b64decode(
            await blank.evaluate(SMALL_PNG, base64.b64encode(picture).decode())
        )
        await blank.close()
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / f"{name}.png").write_bytes(small)
        print(f"{name}.png  {len(small) // 1000} kB", flush=True)

    async def sign_in(self, page: Page) -> None:
        await page.get_by_label("User").fill(self.stack.operator_user)
        await page.get_by_label("Password").fill(self.stack.operator_password)
        await page.keyboard.press("Enter")
        await expect(page.locator("#main")).to_have_attribute(
            "aria-busy", "false", timeout=WITHIN_MS
        )
        await page.wait_for_timeout(500)  # drawings follow their place's size


@dataclass
class Callers:
    """Ask for sessions and wait for what becomes of them."""

    http: httpx.AsyncClient

    async def ask(self, room: str, agent: str = "") -> str:
        body = {"room_name": room, "room_config": {"agents": [{"agent_name": agent}]}}
        answer = await self.http.post("/api/v1/dispatches", json=body)
        return str(answer.raise_for_status().json()["dispatch_id"])

    async def wait(self, dispatch_id: str, *states: str) -> str:
        until = time.monotonic() + WITHIN_MS / 1000
        while True:
            record = (await self.http.get(f"/api/v1/dispatches/{dispatch_id}")).json()
            if record["state"] in states:
                return str(record["state"])
            if time.monotonic() > until:
                raise SystemExit(f"{dispatch_id} is {record['state']}, not {' or '.join(states)}")
            await asyncio.sleep(0.2)

    async def make_sessions(self) -> tuple[str, str]:
        """Some of every kind; returns one that has joined and one that was refused."""
        refused = await self.ask("lesson-refused", DECLINING)
        others = [await self.ask("lesson-without-agent", NOBODYS)]
        joined: list[str] = []
        for number in range(SESSIONS):
            dispatch_id = await self.ask(f"lesson-{number + 1}")
            # On a busy machine one may come too late; that is what happened, then.
            if await self.wait(dispatch_id, "joined", "failed") == "joined":
                joined.append(dispatch_id)
            if len(joined) > STAYING:
                await self.http.delete(f"/api/v1/dispatches/{joined[-STAYING - 1]}")
        for dispatch_id in (refused, *others):
            await self.wait(dispatch_id, "failed")
        return joined[-1], refused


async def photograph(stack: RunningStack, chromium: str) -> None:
    """All pages of a stack that nobody has used yet."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        camera = Camera(browser=browser, stack=stack)
        headers = {"Authorization": f"Bearer {stack.api_key}"}
        async with httpx.AsyncClient(
            base_url=stack.web_url, headers=headers, trust_env=False, timeout=10
        ) as http:
            await _all_pages(camera, Callers(http=http))
        await browser.close()


async def _all_pages(camera: Camera, callers: Callers) -> None:
    stack = camera.stack

    async def as_it_is(page: Page) -> None:
        await page.wait_for_load_state("networkidle")

    async def start(page: Page) -> None:
        await page.get_by_label("API key").fill(stack.api_key)
        await page.get_by_role("button", name="Start session").click()
        await expect(page.locator("#headline")).to_contain_text(
            "The agent is here", timeout=WITHIN_MS
        )
        await page.wait_for_timeout(500)

    async def without_redis(page: Page) -> None:
        await camera.sign_in(page)
        stack.supervisorctl("stop", "servers:redis")
        await expect(page.get_by_role("alert")).to_contain_text("Redis", timeout=WITHIN_MS)
        await expect(page.locator("body")).to_have_class("stale")

    def with_redis() -> None:
        stack.supervisorctl("start", "servers:redis")
        until = time.monotonic() + WITHIN_MS / 1000
        while httpx.get(f"{stack.web_url}/readyz", trust_env=False).json()["not_ready"]:
            if time.monotonic() > until:
                raise SystemExit("the stack does not recover from an outage of Redis")
            time.sleep(0.5)

    await camera.take("dashboard-login", "/dashboard/login", as_it_is)
    await camera.take("dashboard-empty", "/dashboard", camera.sign_in)
    joined, failed = await callers.make_sessions()
    waiting = [await callers.ask(f"lesson-waiting-{n}", NOBODYS) for n in range(2)]
    await camera.take("dashboard", "/dashboard", camera.sign_in)
    await camera.take("dashboard-sessions", "/dashboard/sessions", camera.sign_in)
    for dispatch_id in waiting:
        await callers.wait(dispatch_id, "failed")
    await camera.take("dashboard-session-joined", f"/dashboard/sessions/{joined}", camera.sign_in)
    await camera.take("dashboard-session-failed", f"/dashboard/sessions/{failed}", camera.sign_in)
    await camera.take("client", "/", start)
    await camera.take("api-docs", "/docs", as_it_is)
    # As the dashboard's link has it.
    await camera.take(
        "flower-tasks",
        f"/tasks?name={quote(f'- OR {failed}')}",
        as_it_is,
        base=stack.flower_url,
        auth=True,
    )
    await camera.take("dashboard-redis-away", "/dashboard", without_redis, after=with_redis)


@contextmanager
def _procfile() -> Iterator[Path]:
    """The project's processes, and an agent program that declines every job."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "Procfile"
        own = "declining: exec python -m tests.browser.declining_agent start\n"
        # Nobody's answer is measured here, and a busy machine shall start it in time.
        text = (PROJECT_ROOT / "Procfile").read_text().replace("nice -n 10 ", "")
        path.write_text(text + own)
        yield path


def main() -> None:
    """Take every picture."""
    chromium = find_chromium()
    if chromium is None:
        sys.exit("make screenshots needs Chromium (Debian: apt-get install chromium)")
    with (
        tempfile.TemporaryDirectory(prefix="usher-") as run_dir,
        _procfile() as procfile,
        running_stack(
            Path(run_dir), environ=ENVIRON, procfile=procfile, ready_within_s=180
        ) as stack,
    ):
        asyncio.run(photograph(stack, chromium))
    total = sum(each.stat().st_size for each in FOLDER.glob("*.png"))
    print(f"{total // 1000} kB in all, in {os.path.relpath(FOLDER)}")


if __name__ == "__main__":
    main()
