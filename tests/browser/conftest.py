"""What do the browser tests need? Chromium, the SDK from npm, and a page on the origin of the API.

Without Chromium or npm they skip on a developer's machine, and fail in CI.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NoReturn, Protocol

import pytest
from playwright.async_api import Page, async_playwright

from .serving import PAGES, serve_page

NPM_TIMEOUT_S = 120
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",  # CI runs as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--allow-loopback-in-peer-connection",  # LiveKit's only address here is 127.0.0.1
    "--autoplay-policy=no-user-gesture-required",  # nobody clicks before the sound starts
)


class Stack(Protocol):
    """The running stack, as tests/conftest.py gives it."""

    web_url: str
    api_key: str


def is_missing(what: str) -> NoReturn:
    if os.environ.get("CI"):
        pytest.fail(f"CI needs {what}")
    pytest.skip(f"needs {what}")


@pytest.fixture(scope="session")
def chromium() -> str:
    found = next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)
    return found or is_missing("Chromium on the PATH (Debian: apt-get install chromium)")


@pytest.fixture(scope="session")
def sdk() -> Path:
    """The packages that package-lock.json names, installed unless they are there already."""
    packages = PAGES / "node_modules"
    installed = packages / ".installed-lock-sha256"
    wanted = hashlib.sha256((PAGES / "package-lock.json").read_bytes()).hexdigest()
    if installed.exists() and installed.read_text() == wanted:
        return packages
    npm = shutil.which("npm") or is_missing("npm on the PATH (Debian: apt-get install npm)")
    # livekit-client comes bundled for browsers: what its dependencies ask of Node does not matter
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


@pytest.fixture(scope="session")
def page_url(sdk: Path, stack: Stack) -> Iterator[str]:
    with serve_page(stack.web_url) as url:
        yield url


@pytest.fixture
async def page(chromium: str, page_url: str) -> AsyncIterator[Page]:
    """The test page in a fresh browser profile. An error on the page fails the test."""
    errors: list[Exception] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        page = await browser.new_page()
        page.on("pageerror", lambda error: errors.append(error))
        await page.goto(page_url)
        await page.wait_for_function("window.client !== undefined")
        yield page
        await browser.close()
    assert errors == []
