"""Does a browser with LiveKit's own SDK get its agent from Usher, knowing only its address?"""

import asyncio
import uuid
from pathlib import Path

import pytest
from playwright.async_api import Page

from worker_agent.echo import GREETING

from .conftest import Stack

pytestmark = pytest.mark.timeout(90)

ENDPOINT = "/api/v1/dispatches"
TONE_HZ = 1200  # far from the chime's notes
WAIT_MS = 20_000


async def join(page: Page, stack: Stack, options: dict[str, object]) -> dict[str, str]:
    """Joins by the SDK; gives Usher's whole answer, of which the SDK keeps what it knows."""
    async with page.expect_response(f"**{ENDPOINT}", timeout=WAIT_MS) as response:
        await page.evaluate(
            "([url, headers, options]) => client.join(url, headers, options)",
            [ENDPOINT, {"Authorization": f"Bearer {stack.api_key}"}, options],
        )
    answer: dict[str, str] = await (await response.value).json()
    return answer


async def test_a_browser_joins_with_the_sdks_token_source_and_hears_its_echo(
    page: Page, stack: Stack, tmp_path: Path
) -> None:
    room = f"browser-{uuid.uuid4().hex}"
    answer = await join(page, stack, {"roomName": room, "participantName": "Ann"})
    assert answer["room_name"] == room
    assert await page.evaluate("client.room.name") == room

    await page.wait_for_function("client.agent !== null", timeout=WAIT_MS)
    await page.wait_for_function("client.texts.length > 0", timeout=WAIT_MS)
    agent = await page.evaluate("client.agent")
    assert await page.evaluate("client.texts") == [{"from": agent, "text": GREETING}]

    await page.evaluate("client.whistle", TONE_HZ)
    await page.wait_for_function(
        "toneHz => Math.abs(client.loudestHz() - toneHz) < 10", arg=TONE_HZ, timeout=WAIT_MS
    )
    await page.evaluate("client.write", "Grüße aus dem Browser")
    await page.wait_for_function("client.texts.length > 1", timeout=WAIT_MS)
    assert (await page.evaluate("client.texts"))[1]["text"] == "Grüße aus dem Browser"
    await page.screenshot(path=tmp_path / "joined.png")


async def test_a_browser_that_asks_for_nothing_gets_a_room_of_its_own_with_an_agent(
    page: Page, stack: Stack
) -> None:
    answer = await join(page, stack, {})
    await page.wait_for_function("client.agent !== null", timeout=WAIT_MS)
    assert answer["room_name"]
    assert answer["participant_identity"]


async def test_a_page_reads_its_dispatch_with_nothing_but_its_participant_token(
    page: Page, stack: Stack
) -> None:
    answer = await join(page, stack, {})
    # through the page's own origin: Usher's has no CORS headers
    read = """async (statusUrl) => {
        const headers = { Authorization: `Bearer ${client.token.participantToken}` };
        const answer = await fetch(new URL(statusUrl, location.href).pathname, { headers });
        return await answer.json();
    }"""
    async with asyncio.timeout(WAIT_MS / 1000):
        while (record := await page.evaluate(read, answer["status_url"]))["state"] != "joined":
            await asyncio.sleep(0.1)
    assert record["dispatch_id"] == answer["dispatch_id"]
