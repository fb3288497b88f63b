"""Does the operator see how everything is, and why a session failed? On a phone, in the dark, by
keyboard, by ear; and what when Redis is away?
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, expect

from dispatcher.domain.models import FailureReason, State
from dispatcher.explain import stages
from tests.support.ledgers import Told, report_server
from tests.support.stacks import RunningStack
from worker_agent.decisions import Reason

from .conftest import Browsing
from .dashboards import Dashboard, open_dashboard, signed_in
from .test_client_page import PHONE, TOO_WIDE

pytestmark = pytest.mark.timeout(90)

SOON_MS = 10_000
PAINTED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
CONTRASTS = (Path(__file__).parent / "contrasts.js").read_text()

TOLD = (
    *(Told(number=n, ends_as="ended") for n in range(40)),
    *(Told(number=n, ends_as="joined") for n in range(40, 45)),
    *(Told(number=n, ends_as="joined", client_id="globex") for n in range(45, 47)),
    *(Told(number=n, ends_as="waiting") for n in range(47, 50)),
    Told(number=50, ends_as="failed", reason="no_agent_online", client_id="globex"),
    Told(number=51, ends_as="failed", reason="rejected: full"),
    Told(number=52, ends_as="failed", reason="livekit_unreachable"),
)


def furnish(board: Dashboard) -> None:
    board.raw.flushall()
    board.all_parts_report()
    report_server(board.raw, agent_server_id="server-1", used_slots=3)
    report_server(board.raw, agent_server_id="server-2", draining=True, client_id="acme")
    report_server(board.raw, agent_server_id="server-3", registered=False, client_id="globex")
    board.fill(TOLD)


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    with open_dashboard(tmp_path_factory.mktemp("dashboard")) as opened:
        furnish(opened)
        yield opened


@pytest.fixture
def redis_again(board: Dashboard) -> Iterator[None]:
    """Whatever a test does to Redis: the next one finds it furnished."""
    yield
    board.server.stop()
    board.server.start()
    furnish(board)


@pytest.fixture
def axe(sdk: Path) -> str:
    """Deque's checks for accessibility."""
    return (sdk / "axe-core" / "axe.min.js").read_text()


@pytest.fixture(autouse=True)
async def nothing_to_complain_of(browsing: Browsing) -> AsyncIterator[None]:
    yield
    assert browsing.complaints == []


@asynccontextmanager
async def opened(
    browsing: Browsing, board: Dashboard, path: str = "/dashboard", **context: Any
) -> AsyncIterator[Page]:
    """A page of the dashboard, to whoever has signed in."""
    async with browsing.opened(f"{board.url}{path}", **context) as page:
        await signed_in(page)
        yield page


async def bars(page: Page, place: str) -> dict[str, int]:
    rows = await page.locator(f"#{place} tbody tr").all()
    return {
        str(await row.get_attribute("data-name")): int(await row.locator(".bar-count").inner_text())
        for row in rows
    }


async def test_a_password_lets_in_and_signing_out_lets_nobody(
    browsing: Browsing, board: Dashboard
) -> None:
    async with browsing.opened(f"{board.url}/dashboard/sessions?state=failed") as page:
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
        await expect(page.get_by_label("User")).to_be_focused()
        await page.keyboard.type("operator")
        await page.keyboard.press("Tab")
        await page.keyboard.type("a-wrong-password-of-some-length")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("alert")).to_have_text("User or password is wrong.")
        await expect(page.get_by_label("Password")).to_be_focused()
        assert all("401" in complaint for complaint in browsing.complaints)
        browsing.complaints.clear()
        await signed_in(page)
        assert page.url.endswith("/dashboard/sessions?state=failed")
        await expect(page.locator("#count")).to_contain_text("3 sessions")
        assert await page.evaluate("document.cookie") == ""
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("status")).to_have_text("You have signed out.")
        await page.goto(f"{board.url}/dashboard")
        await expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_the_figures_are_what_happened(browsing: Browsing, board: Dashboard) -> None:
    furnish(board)
    told = Counter(each.ends_as for each in TOLD)
    async with opened(browsing, board) as page:
        for window in ("5m", "1h", "1d", "all"):
            tile = page.locator(f"[data-window='{window}']")
            joined = told["ended"] + told["joined"]
            await expect(tile).to_contain_text(
                f"{joined} joined, {told['failed']} failed", timeout=SOON_MS
            )
            await expect(tile.locator("b")).to_have_text("94 %")
        assert await bars(page, "now") == {"waiting": 3, "joined": 7}
        reasons = Counter(each.reason for each in TOLD if each.ends_as == "failed")
        assert await bars(page, "failed") == reasons
        await expect(page.locator("#join")).to_contain_text("Half of 47 joins within")
        columns = await page.locator("#join svg title").all_text_contents()
        assert sum(int(title.rpartition(": ")[2]) for title in columns) == 47
        await expect(page.locator("#join svg")).to_have_accessible_name(
            re.compile("^Distribution of the time to join of 47 sessions: half within ")
        )
        servers = page.locator("#servers tbody tr")
        await expect(servers).to_have_count(3)
        for text in ("3 of 4", "draining", "not registered at LiveKit"):
            await expect(page.locator("#servers")).to_contain_text(text)

        await page.get_by_label("Client").select_option("globex")
        await expect(page.locator("[data-window='all']")).to_contain_text("2 joined, 1 failed")
        assert await bars(page, "failed") == {"no_agent_online": 1}
        await expect(servers).to_have_count(2)
        assert page.url.endswith("?client=globex")


async def test_a_failure_is_seen_at_once_and_its_page_says_why(
    browsing: Browsing, board: Dashboard
) -> None:
    async with opened(browsing, board) as page:
        await expect(page.locator("#live")).to_have_text("Live")
        board.fill([Told(number=900, ends_as="failed", reason="livekit_refused")])
        failure = page.locator("[data-dispatch=dsp_000900]")
        await expect(failure).to_contain_text("lesson-900", timeout=SOON_MS)
        await expect(page.locator("#verdict")).to_contain_text(
            "The newest: LiveKit refused our key."
        )
        await failure.get_by_role("link").click()
        await expect(page.locator("#headline")).to_contain_text("LiveKit refused")
        await expect(page.get_by_role("heading", level=1)).to_have_text("lesson-900")
        await expect(page.locator("#cause")).to_contain_text("What to do:")
        await expect(page.locator("#chart svg")).to_have_accessible_name(
            re.compile("^Timeline with 2 attempts; .* waits for an agent server")
        )
        spans = await page.locator("#spans tbody tr").all_inner_texts()
        assert [row.split("\t")[1] for row in spans] == ["1", "2"]
        await expect(page.locator("#events [data-event=failed]")).to_be_visible()
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await page.get_by_role("button", name="Copy the dispatch id").click()
        await expect(page.locator("#copied")).to_have_text("Copied.")
        assert await page.evaluate("navigator.clipboard.readText()") == "dsp_000900"
        assert "nobody's business" not in await page.content()


async def test_sessions_are_found_by_room_id_state_and_client(
    browsing: Browsing, board: Dashboard
) -> None:
    async with opened(browsing, board, "/dashboard/sessions") as page:
        rows, found = page.locator("#list tbody tr"), page.locator("#count")
        await expect(rows).to_have_count(50)
        await page.get_by_role("button", name="Older").click()
        await expect(found).to_have_text(re.compile(r"^\d session"))
        await expect(page.locator("#main")).to_be_focused()
        await page.get_by_role("button", name="Newest").click()
        await page.get_by_label("State").select_option("waiting")
        await expect(found).to_have_text("3 sessions, the newest first.")
        await page.get_by_label("State").select_option("")
        await page.get_by_label("Client").select_option("globex")
        await expect(found).to_have_text("3 sessions, the newest first.")
        await page.get_by_label("Client").select_option("")
        search = page.get_by_label("Room, or dispatch id")
        for text, count in (("lesson-17", 1), ("dsp_000017", 1), ("no such room", 0)):
            await search.fill(text)
            await page.keyboard.press("Enter")
            await expect(found).to_contain_text("1 session" if count else "Nothing found.")
            await expect(rows).to_have_count(count)
        await search.fill("lesson-51")
        await page.keyboard.press("Enter")
        await page.get_by_role("link", name="lesson-51").click()
        await expect(page.locator("#headline")).to_contain_text("Failed")


# What a page has when it shows everything.
DRAWN = {
    "/dashboard": "#join svg",
    "/dashboard/sessions": "#list table",
    "/dashboard/sessions/dsp_000051": "#chart svg",
    "/dashboard/sessions/dsp_000042": "#chart svg",
}


async def look_through(page: Page, board: Dashboard) -> AsyncIterator[str]:
    """Each page in turn, when it shows something."""
    for path in DRAWN:
        await page.goto(f"{board.url}{path}")
        await expect(page.locator("#main")).to_have_attribute("aria-busy", "false")
        yield path


async def test_it_fits_a_phone(browsing: Browsing, board: Dashboard) -> None:
    async def nothing_is_too_wide(where: str) -> None:
        for width in (360, 320):
            await page.set_viewport_size({"width": width, "height": 640})
            await page.evaluate(PAINTED)  # a drawing is made anew for each width, before a frame
            wide = [each for each in await page.evaluate(TOO_WIDE) if "unseen" not in each]
            assert wide == [], (where, width)
            scrolls = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            assert await page.evaluate(scrolls) == 0, (where, width)

    async with browsing.opened(f"{board.url}/dashboard", **PHONE) as page:
        await nothing_is_too_wide("the form")
        await signed_in(page)
        async for path in look_through(page, board):
            for summary in await page.locator("summary").all():
                await summary.click()
            await expect(page.locator(DRAWN[path]).first).to_be_visible()
            await nothing_is_too_wide(path)


async def test_everybody_can_read_it(browsing: Browsing, board: Dashboard, axe: str) -> None:
    async def check(where: str) -> None:
        await page.evaluate(axe)
        for colours, rules in (("light", ""), ("dark", "runOnly: ['color-contrast'], ")):
            await page.emulate_media(color_scheme=colours)  # type: ignore[arg-type]
            found = await page.evaluate(f"axe.run({{ {rules}resultTypes: ['violations'] }})")
            assert found["passes"], where
            said = [
                (each["id"], [node["html"][:90] for node in each["nodes"]])
                for each in found["violations"]
            ]
            assert said == [], (where, colours)
            assert await page.evaluate(CONTRASTS) == [], (where, colours)

    async with browsing.opened(f"{board.url}/dashboard") as page:
        await check("the form")
        await signed_in(page)
        async for path in look_through(page, board):
            await expect(page.locator(DRAWN[path]).first).to_be_visible()
            await check(path)
        await page.goto(f"{board.url}/dashboard/sessions/nobody-knows-it")
        await expect(page.locator("#headline")).to_contain_text("Unknown")
        await check("unknown")
        browsing.complaints.clear()  # Chromium notes a 404


async def test_everything_goes_by_keyboard_and_news_leave_the_focus_where_it_is(
    browsing: Browsing, board: Dashboard
) -> None:
    async with opened(browsing, board) as page:
        await page.goto(f"{board.url}/dashboard")
        await expect(page.locator("#main")).to_have_attribute("aria-busy", "false")

        async def press(key: str, focused: str | re.Pattern[str]) -> None:
            await page.keyboard.press(key)
            await expect(page.locator(":focus")).to_have_text(focused)
            style = "getComputedStyle(document.activeElement).outlineStyle"
            assert await page.evaluate(style) == "solid"

        await press("Tab", "Skip to the content")
        await press("Tab", "Usher")
        await press("Tab", "Overview")
        await press("Tab", "Sessions")
        await press("Tab", "Sign out")
        await press("Shift+Tab", "Sessions")
        for _ in range(3):
            await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Enter")
        await expect(page.locator("#main")).to_be_focused()

        hour = page.get_by_role("radio", name="hour", exact=True)
        await hour.focus()
        await page.keyboard.press("ArrowRight")
        await expect(page.get_by_role("radio", name="day")).to_be_checked()
        await expect(page).to_have_url(re.compile("window=1d"))

        first = page.locator("#newest li a").first
        await first.focus()
        before = await first.get_attribute("data-key")
        board.fill([Told(number=950, ends_as="failed", client_id="globex")])
        await expect(page.locator("[data-dispatch=dsp_000950]")).to_be_visible(timeout=SOON_MS)
        await expect(page.locator(":focus")).to_have_attribute("data-key", str(before))
        await page.keyboard.press("Enter")
        await expect(page.locator("#headline")).to_contain_text("Failed")


async def test_whoever_is_signed_out_meanwhile_reads_it_and_comes_back_to_the_same_page(
    browsing: Browsing, board: Dashboard
) -> None:
    async with opened(browsing, board, "/dashboard/sessions?state=waiting") as page:
        await expect(page.locator("#count")).to_contain_text("3 sessions")
        await page.context.clear_cookies()
        await expect(page.get_by_role("alert")).to_contain_text("You are signed out.")
        await expect(page.locator("#list tbody tr")).to_have_count(3)
        browsing.complaints.clear()  # Chromium notes a 401
        await page.get_by_role("link", name="Sign in again").click()
        await signed_in(page)
        assert page.url.endswith("/dashboard/sessions?state=waiting")
        await expect(page.locator("#count")).to_contain_text("3 sessions")


async def test_a_page_that_nobody_sees_asks_nothing(browsing: Browsing, board: Dashboard) -> None:
    async with opened(browsing, board) as page:
        hide = """(hidden) => {
          Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
          document.dispatchEvent(new Event("visibilitychange"));
        }"""
        asked: list[str] = []
        await page.evaluate(hide, True)
        await expect(page.locator("#live")).to_have_text("Paused")
        page.on("request", lambda request: asked.append(request.url))
        await page.wait_for_timeout(3000)  # it would have asked once or twice
        assert asked == []
        await page.evaluate(hide, False)
        await expect(page.locator("#live")).to_have_text("Live")
        assert asked


async def test_with_redis_away_the_last_figures_stay_and_it_recovers_by_itself(
    browsing: Browsing, board: Dashboard, axe: str, redis_again: None
) -> None:
    furnish(board)
    async with opened(browsing, board) as page:
        tile = page.locator("[data-window='all']")
        await expect(tile).to_contain_text("47 joined, 3 failed", timeout=SOON_MS)
        cookies = {each["name"]: each["value"] for each in await page.context.cookies()}
        with (
            board.server.frozen(),
            httpx.Client(base_url=board.url, cookies=cookies, trust_env=False) as http,
        ):
            answers = [http.get("/dashboard/api/overview?window=1d")]
            while answers[-1].status_code != 503:  # it may be remembered for some seconds
                assert len(answers) < 300
                time.sleep(0.1)
                answers.append(http.get("/dashboard/api/overview?window=1d"))
            answers += [http.get("/dashboard/api/overview?window=1d") for _ in range(3)]
            assert min(each.elapsed.total_seconds() for each in answers[-4:]) < 1
        board.server.stop()
        away = page.get_by_role("alert")
        await expect(away).to_contain_text("Redis does not answer", timeout=SOON_MS)
        await expect(page.locator("#live")).to_contain_text("As of ")
        await expect(tile).to_contain_text("47 joined, 3 failed")
        await expect(page.locator("body")).to_have_class("stale")
        await page.evaluate(axe)
        assert (await page.evaluate("axe.run()"))["violations"] == []

        await page.goto(f"{board.url}/dashboard")  # whoever comes now has no figures at all
        await expect(page.get_by_role("alert")).to_contain_text("Redis does not answer")
        await expect(page.locator("#live")).to_have_text("No figures")

        board.server.start()  # empty, as it happens
        await expect(page.locator("#live")).to_have_text("Live", timeout=SOON_MS)
        await expect(away).to_be_hidden()
        await expect(page.locator("#now")).to_contain_text("No session right now.", timeout=SOON_MS)
        await expect(page.locator("#servers")).to_contain_text(
            "No agent server has reported itself"
        )
        await expect(page.locator("#verdict-headline")).to_contain_text("things need you:")
        browsing.complaints.clear()  # Chromium notes each 503


async def test_there_are_words_for_everything_that_can_happen(
    browsing: Browsing, board: Dashboard
) -> None:
    async with browsing.opened(f"{board.url}/dashboard/login") as page:
        known = await page.evaluate("import('/dashboard/parts/words.js')")
    states, failures, rejects, shown = (
        set(known[name]) for name in ("STATES", "FAILURES", "REJECTS", "STAGES")
    )
    assert states == set(State)
    assert failures == set(FailureReason)
    accepting = {Reason.CLAIMED, Reason.ADOPTED, Reason.DELEGATED, Reason.NOT_OURS}
    assert rejects == set(Reason) - accepting
    assert shown == {
        value for name, value in vars(stages).items() if name.isupper() and isinstance(value, str)
    }


async def test_a_real_session_is_on_it_with_all_of_its_way(
    browsing: Browsing, stack: RunningStack
) -> None:
    caller = {"Authorization": f"Bearer {stack.api_key}"}
    async with httpx.AsyncClient(base_url=stack.web_url, headers=caller, trust_env=False) as http:
        asked = (await http.post("/api/v1/dispatches", json={})).json()
        dispatch_id = asked["dispatch_id"]
        address = f"{stack.web_url}/dashboard/sessions/{dispatch_id}"
        async with browsing.opened(address) as page:
            await signed_in(page, stack.operator_user, stack.operator_password)
            await expect(page.locator("#state")).to_have_text("joined", timeout=20_000)
            record = (await http.get(f"/api/v1/dispatches/{dispatch_id}")).json()
            await expect(page.locator("#events li")).to_have_count(len(record["timeline"]))
            await expect(page.locator("#facts")).to_contain_text(record["agent_identity"])
            await expect(page.locator("#chart")).to_contain_text("joined")
            flower = await page.get_by_role("link", name="Its tasks in Flower").get_attribute(
                "href"
            )
            assert str(flower).startswith(stack.flower_url)
        await http.delete(f"/api/v1/dispatches/{dispatch_id}")


@pytest.mark.long  # ten thousand sessions are made by 60,000 steps
async def test_ten_thousand_sessions_are_shown_as_quickly_as_ten(
    browsing: Browsing, tmp_path: Path
) -> None:
    def of(number: int) -> str:
        return "failed" if number == 17 else "joined" if number > 9900 else "ended"

    with open_dashboard(tmp_path) as board:
        board.fill(Told(number=number, ends_as=of(number)) for number in range(10_000))
        async with opened(browsing, board) as page:
            cookies = {each["name"]: each["value"] for each in await page.context.cookies()}
            with httpx.Client(base_url=board.url, cookies=cookies, trust_env=False) as http:
                for path in (
                    "overview?window=5m",
                    "overview?window=1d",
                    "sessions",
                    "sessions?state=failed",
                    "sessions?state=joined",
                    "sessions?text=lesson-9999",
                    "sessions?text=lesson-17",
                    "sessions?text=dsp_000017",
                    "sessions?state=queued",
                ):
                    answer = http.get(f"/dashboard/api/{path}")
                    assert answer.status_code == 200
                    assert answer.elapsed.total_seconds() < 1, path
            await expect(page.locator("[data-window='all']")).to_contain_text(
                "9,999 joined, 1 failed"
            )
            await expect(page.locator("[data-dispatch=dsp_000017]")).to_be_visible()
