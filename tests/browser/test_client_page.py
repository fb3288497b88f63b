"""Can a person use the page at `/`? Start a session, talk, leave; by keyboard; on a phone; and what
does it say when something is wrong?
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from dispatcher.domain import state_machine
from dispatcher.domain.models import FailureReason, State, Transition
from worker_agent.echo import GREETING

from .conftest import WAIT_MS, Browsing, Stack
from .sounds import write_whistle

TONE_HZ = 1200  # far from the chime's notes
NOBODYS_AGENT = "agent-that-is-not-there"
FAKE_MICROPHONE = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
SMALL = {"viewport": {"width": 320, "height": 568}, "color_scheme": "dark"}

# The loudest frequency of what the page plays, or 0 while there is nothing above -60 dB.
LOUDEST_HZ = """() => {
  const audio = document.querySelector("audio");
  if (!audio?.srcObject) return 0;
  if (!window.ear) {
    const context = new AudioContext();
    window.ear = new AnalyserNode(context, { fftSize: 8192, smoothingTimeConstant: 0 });
    context.createMediaStreamSource(audio.srcObject).connect(window.ear);
  }
  const levels = new Float32Array(window.ear.frequencyBinCount);
  window.ear.getFloatFrequencyData(levels);
  const loudest = levels.indexOf(Math.max(...levels));
  return levels[loudest] > -60 ? loudest * window.ear.context.sampleRate / window.ear.fftSize : 0;
}"""
TOO_WIDE = """() => [...document.querySelectorAll("body *")]
  .filter((e) => e.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5)
  .map((e) => e.outerHTML.slice(0, 80))"""
FINGER_PX = 44


@pytest.fixture(autouse=True)
async def nothing_to_complain_of(browsing: Browsing) -> AsyncIterator[None]:
    yield
    assert browsing.complaints == []


def headline(page: Page) -> Locator:
    return page.locator("#headline")


async def until(page: Page, condition: str) -> None:
    """Return when it holds. (`wait_for_function` would need `unsafe-eval` in the page's CSP.)"""
    await page.evaluate(
        f"""async () => {{
          const end = performance.now() + {WAIT_MS};
          while (!({condition})) {{
            if (performance.now() > end) throw new Error("waited in vain");
            await new Promise((again) => setTimeout(again, 50));
          }}
        }}"""
    )


async def start(page: Page, key: str, *, room: str = "", agent: str = "") -> None:
    await page.get_by_label("API key").fill(key)
    if room or agent:
        await page.get_by_text("Room and agent").click()
        await page.get_by_label("Room name").fill(room)
        await page.get_by_label("Agent name").fill(agent)
    await page.get_by_role("button", name="Start session").click()


async def agent_is_here(page: Page) -> None:
    await expect(headline(page)).to_contain_text("The agent is here", timeout=WAIT_MS)


async def test_a_person_starts_a_session_talks_and_leaves(
    browsing: Browsing, stack: Stack, tmp_path: Path
) -> None:
    whistle = write_whistle(tmp_path / "whistle.wav", tone_hz=TONE_HZ)
    sound = f"--use-file-for-fake-audio-capture={whistle}"
    async with browsing.opened(f"{stack.web_url}/", *FAKE_MICROPHONE, sound) as page:
        await expect(headline(page)).to_have_text("No session yet.")
        await start(page, stack.publishable_key)
        await agent_is_here(page)
        await expect(page.locator("#events li[data-event=queued]")).to_be_visible()
        await expect(page.locator("#events li[data-event=joined]")).to_be_visible()
        await expect(page.get_by_label("Messages")).to_contain_text(GREETING)
        await expect(page.locator("#fact-dispatch")).to_have_text(re.compile("^dsp_"))

        await page.get_by_role("button", name="Turn microphone on").click()
        await expect(page.get_by_role("button", name="Mute", exact=True)).to_be_visible()
        await until(page, f"Math.abs(({LOUDEST_HZ})() - {TONE_HZ}) < 30")
        for meter in ("your-level", "agent-level"):
            await until(page, f"document.getElementById('{meter}').value > 0")
        await page.get_by_role("button", name="Mute", exact=True).click()
        await expect(page.get_by_role("button", name="Unmute")).to_be_visible()
        await until(page, "document.getElementById('your-level').value === 0")

        await page.get_by_label("Write to the agent").fill("Grüße")
        await page.keyboard.press("Enter")
        await expect(page.get_by_label("Messages")).to_contain_text("Agent: Grüße")

        # A publishable key may not cancel, so there is nothing that would.
        await expect(page.get_by_role("button", name="Cancel session")).to_be_hidden()
        await page.get_by_role("button", name="Leave").click()
        await expect(headline(page)).to_have_text("You have left.")
        await expect(page.get_by_role("button", name="Start session")).to_be_visible()
        assert stack.publishable_key not in page.url
        stored = "JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
        assert stack.publishable_key not in await page.evaluate(stored)


async def test_everything_goes_by_keyboard_and_the_focus_is_seen(
    browsing: Browsing, stack: Stack
) -> None:
    async with browsing.opened(f"{stack.web_url}/", *FAKE_MICROPHONE) as page:

        async def press(key: str, focused: str) -> None:
            await page.keyboard.press(key)
            await expect(page.locator(":focus")).to_have_text(focused)
            assert (
                await page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                == "solid"
            )

        await page.keyboard.press("Tab")
        await expect(page.get_by_label("API key")).to_be_focused()
        await page.keyboard.type(stack.api_key)
        await page.keyboard.press("Enter")
        await agent_is_here(page)
        await expect(page.locator(":focus")).to_have_text("Leave")
        await press("Shift+Tab", "Turn microphone on")
        await press("Space", "Mute")
        await press("Tab", "Leave")
        await press("Tab", "Cancel session")
        await press("Shift+Tab", "Leave")
        await press("Enter", "Start session")
        await expect(headline(page)).to_have_text("You have left.")


@pytest.mark.parametrize("screen", [PHONE, SMALL])
async def test_it_fits_a_phone(
    browsing: Browsing, stack: Stack, screen: dict[str, Any], tmp_path: Path
) -> None:
    async with browsing.opened(f"{stack.web_url}/", **screen) as page:
        await page.get_by_text("Room and agent").click()
        assert await page.evaluate(TOO_WIDE) == []
        await page.get_by_text("Room and agent").click()
        await start(page, stack.api_key, room="room-" + "w" * 80)
        await agent_is_here(page)
        await expect(page.locator("#events li[data-event=joined]")).to_be_visible()
        assert await page.evaluate(TOO_WIDE) == []
        for button in await page.get_by_role("button").all():
            box = await button.bounding_box()
            assert box
            assert min(box["width"], box["height"]) >= FINGER_PX, await button.text_content()
        await page.screenshot(path=tmp_path / "phone.png", full_page=True)


async def test_who_waits_in_vain_reads_why_and_can_cancel(browsing: Browsing, stack: Stack) -> None:
    async with browsing.opened(f"{stack.web_url}/") as page:
        await start(page, stack.api_key, agent=NOBODYS_AGENT)
        await expect(headline(page)).to_contain_text(
            "Waiting for an agent: no agent server is running", timeout=WAIT_MS
        )
        await page.get_by_role("button", name="Cancel session").click()
        await expect(headline(page)).to_contain_text("The session is cancelled")
        await expect(page.locator("#events li[data-event=cancelled_by_client]")).to_be_visible()
        await expect(page.get_by_role("button", name="Start session")).to_be_visible()


@pytest.mark.long  # the deadline, 20 s
async def test_who_has_waited_in_vain_reads_why_and_can_try_again(
    browsing: Browsing, stack: Stack
) -> None:
    async with browsing.opened(f"{stack.web_url}/") as page:
        await start(page, stack.api_key, agent=NOBODYS_AGENT)
        await expect(headline(page)).to_contain_text(
            "No agent came: no agent server is running", timeout=WAIT_MS
        )
        room, dispatch = (page.locator(f"#fact-{name}") for name in ("room", "dispatch"))
        before = await dispatch.text_content()
        same_room = await room.text_content()
        await page.get_by_role("button", name="Try again").click()
        await expect(headline(page)).to_contain_text("Waiting for an agent", timeout=WAIT_MS)
        assert await dispatch.text_content() != before
        assert await room.text_content() == same_room
        await page.get_by_role("button", name="Cancel session").click()
        await expect(headline(page)).to_contain_text("The session is cancelled")


async def test_a_wrong_key_is_said_to_be_wrong_and_the_right_one_works_then(
    browsing: Browsing, stack: Stack
) -> None:
    async with browsing.opened(f"{stack.web_url}/") as page:
        await start(page, "usk_wrong")
        await expect(headline(page)).to_have_text("This key is not valid.")
        await expect(page.locator("#advice")).to_contain_text(
            "Check that you have copied all of it"
        )
        key = page.get_by_label("API key")
        await expect(key).to_be_focused()
        await expect(key).to_have_attribute("aria-invalid", "true")
        # Chromium itself notes an answer of 401.
        assert [c for c in browsing.complaints if "401" not in c] == []
        browsing.complaints.clear()
        await start(page, stack.api_key)
        await agent_is_here(page)
        await expect(key).to_have_attribute("aria-invalid", "false")


async def test_what_usher_refuses_is_said_in_its_own_words(
    browsing: Browsing, stack: Stack
) -> None:
    async with browsing.opened(f"{stack.web_url}/") as page:
        await start(page, stack.publishable_key, room="short")
        await expect(page.locator("#advice")).to_contain_text("16 characters")
        browsing.complaints.clear()
        await page.get_by_label("Room name").fill("")
        await page.get_by_label("Agent name").fill("somebody-elses")
        await page.get_by_role("button", name="Start session").click()
        await expect(page.locator("#advice")).to_contain_text("'somebody-elses'")
        browsing.complaints.clear()
        await page.context.set_offline(True)
        await page.get_by_role("button", name="Start session").click()
        await expect(headline(page)).to_have_text("Usher cannot be reached.")
        browsing.complaints.clear()


async def test_a_livekit_that_cannot_be_reached_is_named_and_another_try_gets_the_same_session(
    browsing: Browsing, stack: Stack
) -> None:
    blocked = stack.livekit_url.rpartition("/")[2]
    rule = f"--host-resolver-rules=MAP {blocked} ~NOTFOUND"
    async with browsing.opened(f"{stack.web_url}/", rule) as page:
        await start(page, stack.api_key)
        await expect(headline(page)).to_have_text(
            f"LiveKit cannot be reached at {stack.livekit_url}.", timeout=WAIT_MS
        )
        before = await page.locator("#fact-dispatch").text_content()
        async with page.expect_response("**/api/v1/dispatches") as again:
            await page.get_by_role("button", name="Try again").click()
        assert (await (await again.value).json())["dispatch_id"] == before
        await expect(headline(page)).to_contain_text("LiveKit cannot be reached", timeout=WAIT_MS)
    assert browsing.complaints
    browsing.complaints.clear()


@pytest.mark.parametrize(
    ("allowed", "said"), [(False, "You have not allowed"), (True, "There is no microphone.")]
)
async def test_without_a_microphone_the_page_says_why_and_goes_on(
    browsing: Browsing, stack: Stack, allowed: bool, said: str
) -> None:
    flags = ("--use-fake-device-for-media-stream",) if not allowed else ()
    async with browsing.opened(f"{stack.web_url}/", *flags) as page:
        if allowed:
            await page.context.grant_permissions(["microphone"])
            devices = await page.evaluate("navigator.mediaDevices.enumerateDevices()")
            if any(device["kind"] == "audioinput" for device in devices):
                pytest.skip("this machine has a microphone")
        await start(page, stack.api_key)
        await agent_is_here(page)
        await page.get_by_role("button", name="Turn microphone on").click()
        await expect(page.locator("#notice")).to_contain_text(said)
        await expect(page.locator("#notice")).to_contain_text("You can still write to the agent.")
        await agent_is_here(page)
        browsing.complaints.clear()  # LiveKit's SDK logs it too


async def test_there_are_words_for_everything_that_can_happen(
    browsing: Browsing, stack: Stack
) -> None:
    moves = [move for move in vars(state_machine).values() if isinstance(move, Transition)]
    async with browsing.opened(f"{stack.web_url}/") as page:
        words = await page.evaluate(
            """async () => {
              const { EVENTS, REASONS, STATES } = await import("/client/words.js");
              return [EVENTS, REASONS, STATES].map(Object.keys);
            }"""
        )
    events, reasons, states = map(set, words)
    assert {move.event for move in moves} <= events
    assert reasons == set(FailureReason)
    assert states == set(State)
