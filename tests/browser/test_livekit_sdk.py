"""Does a program with LiveKit's own SDK get its agent from Usher, knowing its address and a key?

In a browser from a page of the client's own, so by CORS, with either kind of key; and in Node.
"""

import asyncio
import json
import os
import subprocess
import uuid
from pathlib import Path

import pytest
from playwright.async_api import Error, Page

from worker_agent.echo import GREETING

from .conftest import PAGES, WAIT_MS, Browsing, Stack
from .serving import PageServer

ENDPOINT = "/api/v1/dispatches"
TONE_HZ = 1200  # far from the chime's notes
NODE_TIMEOUT_S = 120


async def join(page: Page, stack: Stack, key: str, options: dict[str, object]) -> dict[str, str]:
    """Joins by the SDK; gives Usher's whole answer, of which the SDK keeps what it knows."""
    asked = f"{stack.web_url}{ENDPOINT}"
    async with page.expect_response(
        lambda response: response.url == asked and response.request.method == "POST",
        timeout=WAIT_MS,
    ) as response:
        await page.evaluate(
            "([url, headers, options]) => client.join(url, headers, options)",
            [asked, {"Authorization": f"Bearer {key}"}, options],
        )
    answer: dict[str, str] = await (await response.value).json()
    return answer


async def test_a_browser_joins_with_the_sdks_token_source_and_hears_its_echo(
    page: Page, stack: Stack, tmp_path: Path
) -> None:
    room = f"browser-{uuid.uuid4().hex}"
    answer = await join(page, stack, stack.api_key, {"roomName": room, "participantName": "Ann"})
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


async def test_a_browser_with_a_publishable_key_gets_a_room_of_its_own_with_an_agent(
    page: Page, stack: Stack
) -> None:
    answer = await join(page, stack, stack.publishable_key, {})
    await page.wait_for_function("client.agent !== null", timeout=WAIT_MS)
    assert answer["room_name"]
    assert answer["participant_identity"].startswith("user-")


async def test_a_page_that_is_not_the_clients_gets_nothing_even_with_its_keys(
    browsing: Browsing, sdk: Path, page_server: PageServer, stack: Stack
) -> None:
    async with browsing.opened(f"{page_server.foreign_origin}/page.html") as page:
        await page.wait_for_function("window.client !== undefined")
        for key in (stack.publishable_key, stack.api_key):
            with pytest.raises(Error, match="Failed to fetch"):
                await join(page, stack, key, {})
        assert await page.evaluate("client.token") is None
    assert any("blocked by CORS policy" in complaint for complaint in browsing.complaints)


async def test_a_page_reads_its_dispatch_with_nothing_but_its_participant_token(
    page: Page, stack: Stack
) -> None:
    answer = await join(page, stack, stack.publishable_key, {})
    read = """async (statusUrl) => {
        const headers = { Authorization: `Bearer ${client.token.participantToken}` };
        return await (await fetch(statusUrl, { headers })).json();
    }"""
    async with asyncio.timeout(WAIT_MS / 1000):
        while (record := await page.evaluate(read, answer["status_url"]))["state"] != "joined":
            await asyncio.sleep(0.1)
    assert record["dispatch_id"] == answer["dispatch_id"]


def test_a_program_in_node_joins_with_the_sdks_token_source_and_sees_its_agent(
    node: str, sdk: Path, stack: Stack
) -> None:
    room = f"node-{uuid.uuid4().hex}"
    settings = {"USHER_URL": stack.web_url, "USHER_KEY": stack.api_key, "USHER_ROOM": room}
    done = subprocess.run(
        [node, "node_client.mjs"],
        cwd=PAGES,
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=NODE_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    (seen,) = [line for line in lines if "dispatchId" in line]  # the SDK's own log is there, too
    assert seen["room"] == room
    assert seen["agent"].startswith("agent-")
    assert seen["dispatchId"].startswith("dsp_")
