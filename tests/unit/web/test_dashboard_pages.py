"""Are the dashboard's pages whole, and do they need nothing that a strict CSP forbids?"""

from __future__ import annotations

import re

import pytest
from flask import Flask, render_template

from tests.support.pages import Inspected
from web.dashboard import pages as dashboard_pages
from web.pages import client_page
from web.pages.static_files import PAGES

FOLDER = PAGES / "dashboard"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.js"))


def rendered(name: str) -> Inspected:
    """What a browser gets of a page."""
    app = Flask("pages", static_folder=None)
    app.register_blueprint(dashboard_pages.blueprint)
    app.register_blueprint(client_page.blueprint)
    with app.test_request_context():
        return Inspected(render_template(f"dashboard/{name}.html"))


@pytest.mark.parametrize("name", ["login", "off", "overview", "session", "sessions"])
def test_a_page_loads_its_own_parts_and_has_nothing_inline(name: str) -> None:
    page = rendered(name)
    assert page.inline == []
    assert "/dashboard/parts/style.css" in page.loaded
    for address in page.loaded:
        place, _, part = address.rpartition("/")
        assert place == "/dashboard/parts" or address == "/client/icon.svg"
        assert (FOLDER / part).is_file() or part == "icon.svg"
    assert page.references <= page.ids


def test_every_part_is_served_and_nothing_else_is() -> None:
    app = Flask("pages", static_folder=None)
    app.register_blueprint(dashboard_pages.blueprint)
    browser = app.test_client()
    kinds = {".js": "text/javascript", ".css": "text/css"}
    for path in FOLDER.iterdir():
        answer = browser.get(f"/dashboard/parts/{path.name}")
        assert (answer.status_code, answer.mimetype) == (200, kinds[path.suffix])
        assert answer.data == path.read_bytes()
    for other in ("overview.html", "nothing.js", "..%2f..%2fapp.py", "../templates/base.html"):
        assert browser.get(f"/dashboard/parts/{other}").status_code == 404


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_a_script_imports_is_there(name: str) -> None:
    for found in re.findall(r'^import .* from "\./(.+)";', (FOLDER / name).read_text(), re.M):
        assert found in SCRIPTS


@pytest.mark.parametrize("name", ["overview", "sessions", "session"])
def test_an_id_that_a_script_looks_for_is_on_its_page(name: str) -> None:
    texts = [(FOLDER / each).read_text() for each in (f"{name}.js", "api.js")]
    wanted = {found for text in texts for found in re.findall(r'\bat\("([\w-]+)"\)', text)}
    assert len(wanted) > 3
    assert wanted <= rendered(name).ids
