"""What do the browser tests need? Chromium, and the SDKs from npm.

Without Chromium or npm they skip on a developer's machine, and fail in CI.
"""

import contextlib
import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import pytest
from playwright.async_api import ConsoleMessage, Page, async_playwright, expect

from tests.support.chromium import FLAGS, find_chromium

from .serving import PAGES, PageServer

NPM_TIMEOUT_S = 120
# Chromium, LiveKit and an agent start on the same two cores.
WAIT_MS = 40_000
expect.set_options(timeout=WAIT_MS)


class Stack(Protocol):
    """The running stack, as tests/conftest.py gives it."""

    web_url: str
    api_key: str
    publishable_key: str
    livekit_url: str


def is_missing(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"CI needs {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def chromium() -> str:
    return find_chromium() or is_missing("Chromium on the PATH (Debian: apt-get install chromium)")


@pytest.fixture(scope="session")
def node() -> str:
    return shutil.which("node") or is_missing("node on the PATH (Debian: apt-get install nodejs)")


@pytest.fixture(scope="session")
def sdk() -> Path:
    """The packages that package-lock.json names, installed unless they are there already."""
    packages = PAGES / "node_modules"
    installed = packages / ".installed-lock-sha256"
    wanted = hashlib.sha256((PAGES / "package-lock.json").read_bytes()).hexdigest()
    if installed.exists() and installed.read_text() == wanted:
        return packages
    npm = shutil.which("npm") or is_missing("npm on the PATH (Debian: apt-get install npm)")
    # What the SDKs' dependencies ask of Node does not matter to a browser, and is seen in Node.
    command = [npm, "ci", "--ignore-scripts", "--engine-strict=false", "--no-audit", "--no-fund"]
    try:
        subprocess.run(
            command, cwd=PAGES, check=True, timeout=NPM_TIMEOUT_S, capture_output=True, text=True
        )
    except subprocess.CalledProcessError as error:
        is_missing(f"an npm registry that answers: npm ci said {error.stderr[-500:]}")
    except subprocess.TimeoutExpired:
        is_missing(f"an npm registry that answers within {NPM_TIMEOUT_S} s")
    installed.write_text(wanted)
    return packages


@dataclass(kw_only=True)
class Browsing:
    """Opens pages in fresh profiles of Chromium, and keeps what they complain of."""

    chromium: str
    complaints: list[str] = field(default_factory=list)

    def opened(self, url: str, *flags: str, **context: Any) -> AbstractAsyncContextManager[Page]:
        """A page at `url`; `context` is the screen, the colours and so on."""
        return self._opened(url, flags, context)

    @contextlib.asynccontextmanager
    async def _opened(
        self, url: str, flags: tuple[str, ...], context: dict[str, Any]
    ) -> AsyncIterator[Page]:
        async with async_playwright() as playwright:
            browser = await playwright.chromium.launch(
                executable_path=self.chromium, args=[*FLAGS, *flags]
            )
            page = await browser.new_page(**context)
            page.on("pageerror", lambda error: self.complaints.append(str(error)))
            page.on("console", self._note)
            await page.goto(url)
            yield page
            await browser.close()

    def _note(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.complaints.append(f"{message.text} ({message.location.get('url')})")


@pytest.fixture
def browsing(chromium: str) -> Browsing:
    return Browsing(chromium=chromium)


@pytest.fixture
async def page(
    browsing: Browsing, sdk: Path, page_server: PageServer, stack: Stack
) -> AsyncIterator[Page]:
    """The test page, at an origin of the client's. An error on the page fails the test."""
    async with browsing.opened(f"{page_server.origin}/page.html") as page:
        await page.wait_for_function("window.client !== undefined")
        yield page
    assert browsing.complaints == []
