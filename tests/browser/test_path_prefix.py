"""Behind a proxy that serves Usher under a path the pages find their parts, data and each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.async_api import expect

from tests.support.ledgers import Told

from .conftest import Browsing
from .dashboards import open_dashboard, signed_in
from .path_proxy import PREFIX, under_a_path

pytestmark = [pytest.mark.timeout(90), pytest.mark.apart]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the proxy serves a web process with three sessions."""
    directory = tmp_path_factory.mktemp("dashboard")
    with (
        open_dashboard(directory, USHER_TRUSTED_PROXIES="1") as board,
        under_a_path(board.url) as url,
    ):
        board.raw.flushall()
        board.all_parts_report()
        board.fill(Told(number=n, ends_as="failed", reason="no_agent_online") for n in range(3))
        yield url


async def test_the_dashboard_works_from_signing_in_to_signing_out(
    browsing: Browsing, here: str
) -> None:
    async with browsing.opened(f"{here}/dashboard/sessions?state=failed") as page:
        await signed_in(page)
        assert page.url == f"{here}/dashboard/sessions?state=failed"
        await expect(page.locator("#count")).to_contain_text("3 sessions")
        await page.locator("tbody a").first.click()
        await expect(page.locator("#main")).to_have_attribute("aria-busy", "false")
        assert page.url.startswith(f"{here}/dashboard/sessions/dsp_")
        await page.get_by_role("link", name="Overview").click()
        await expect(page.locator("#live")).to_have_text("Live")
        assert page.url == f"{here}/dashboard"
        [cookie] = await page.context.cookies()
        assert cookie["path"] == f"{PREFIX}/dashboard"
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_role("status")).to_have_text("You have signed out.")
        assert page.url == f"{here}/dashboard/login?out"
    assert browsing.complaints == []


async def test_the_page_for_people_asks_for_its_session_under_the_path(
    browsing: Browsing, here: str
) -> None:
    async with browsing.opened(f"{here}/") as page:
        await page.wait_for_function("window.LivekitClient !== undefined")
        async with page.expect_request("**/api/v1/dispatches") as asked:
            await page.evaluate(
                """async () => {
                  const { Session } = await import(document.querySelector("script[type=module]")
                    .src.replace("app.js", "session.js"));
                  await new Session({ key: "usk_wrong" }, () => {}).start();
                }"""
            )
        request = await asked.value
        assert request.url == f"{here}/api/v1/dispatches"
        answer = await request.response()
        assert answer is not None
        assert answer.status == 401
    browsing.complaints.clear()  # the browser notes the 401
