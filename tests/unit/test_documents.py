"""The documents agree with each other and with the settings: links, index of decisions, README."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

import dispatcher.flower_options
import dispatcher.settings
import web.settings
import worker_agent.settings
from devstack import PROJECT_ROOT

DOCS = PROJECT_ROOT / "docs"
DECISIONS = DOCS / "decisions"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "examples/*/*.md")
    for path in PROJECT_ROOT.glob(pattern)
    if "node_modules" not in path.parts
)
MAX_README_LINES = 130


def without_code(text: str) -> str:
    """The page without its blocks and spans of code, in which nothing is a link."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "", text)


def anchors(path: Path) -> set[str]:
    """The headings of a page as GitHub makes anchors of them."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


def dead_links(page: Path) -> list[str]:
    """The relative links of a page that lead to no file, or to no heading of it."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text("utf-8"))):
        name, _, anchor = link.partition("#")
        if re.match(r"\w+:", link):
            continue
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT_ROOT)))
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert dead_links(page) == []


def test_the_index_lists_every_decision_by_its_number_and_title() -> None:
    pages = sorted(path for path in DECISIONS.glob("*.md") if path.name != "README.md")
    index = (DECISIONS / "README.md").read_text("utf-8")
    rows = re.findall(r"^\| (\d{4}) \| \[([^]]+)\]\(([^)]+)\) \| ", index, re.MULTILINE)

    assert [name for _, _, name in rows] == [path.name for path in pages]
    for (number, title, name), path in zip(rows, pages, strict=True):
        assert name.startswith(f"{number}-")
        assert path.read_text("utf-8").startswith(f"# {int(number)}. {title}\n\nStatus: ")


def test_the_readme_is_short() -> None:
    lines = (PROJECT_ROOT / "README.md").read_text("utf-8").splitlines()

    assert len(lines) <= MAX_README_LINES


def test_the_readme_quotes_only_figures_of_the_benchmarks() -> None:
    readme = (PROJECT_ROOT / "README.md").read_text("utf-8")
    quoted = set(re.findall(r"([\d.]+) times", readme))
    measured = set(re.findall(r"\d+\.\d+", (DOCS / "benchmarks.md").read_text("utf-8")))

    assert quoted
    assert quoted - measured == set()


def test_the_page_of_settings_has_every_setting_and_none_more() -> None:
    modules = (dispatcher.settings, dispatcher.flower_options, web.settings, worker_agent.settings)
    settings = {
        str(field.alias)
        for module in modules
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, BaseSettings)
        for field in each.model_fields.values()
    }
    page = (DOCS / "settings.md").read_text("utf-8")
    written = set(re.findall(r"`([A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+)`", page))

    # Flower and OpenTelemetry read these themselves.
    assert written - settings == {"FLOWER_BASIC_AUTH", "OTEL_EXPORTER_OTLP_ENDPOINT"}
    assert settings - written == set()
