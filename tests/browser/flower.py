"""How does a person find a session in Flower? For tests and for the pictures in docs/."""

from __future__ import annotations

from typing import Final

from playwright.async_api import Locator, Page
from playwright.async_api import TimeoutError as TookTooLong

TASKS: Final = "/tasks"
ROWS: Final = "#tasks-table tbody tr"
SEARCH: Final = "#tasks-table_filter input"


async def found_tasks(page: Page, search: str, *, at_least: int, within_s: float = 20) -> Locator:
    """The rows of the open page at `TASKS` for what is typed into its search, once they are there.

    Flower hears of a task a moment after it ran, and the page asks only when something is typed.
    """
    matching = page.locator(ROWS).filter(has=page.locator("td:nth-child(2)"))
    for _ in range(max(1, int(within_s))):
        await page.locator(SEARCH).fill("")
        async with page.expect_response(lambda response: "/tasks/datatable" in response.url):
            await page.locator(SEARCH).fill(search)
        try:
            await matching.nth(at_least - 1).wait_for(timeout=1000)
        except TookTooLong:
            continue
        return matching
    raise AssertionError(f"fewer than {at_least} tasks for {search!r} within {within_s} s")
