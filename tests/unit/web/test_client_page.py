"""Is the page that Usher serves whole, and does it need nothing that a strict CSP forbids?"""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from devstack import vendor
from tests.support.pages import Inspected
from web.pages import client_page

PAGES = Path(client_page.__file__).parent
PARTS = [
    path.relative_to(PAGES).as_posix() for path in (PAGES / "client").rglob("*") if path.is_file()
]


@pytest.fixture
def browser() -> FlaskClient:
    app = Flask("page", static_folder=None)
    app.register_blueprint(client_page.blueprint)
    return app.test_client()


def test_the_page_loads_what_is_there_and_has_nothing_inline(browser: FlaskClient) -> None:
    answer = browser.get("/")
    assert answer.mimetype == "text/html"
    page = Inspected(answer.text)
    assert page.inline == []
    assert len(page.loaded) == 4
    for address in page.loaded:
        assert address.startswith("/client/")
        assert browser.get(address).status_code == 200, address
    assert page.references <= page.ids


def test_every_part_is_served_as_what_it_is_and_nothing_else_is(browser: FlaskClient) -> None:
    kinds = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    for part in PARTS:
        answer = browser.get(f"/{part}")
        assert answer.status_code == 200, part
        assert answer.mimetype == kinds.get(Path(part).suffix, "text/plain")
        assert answer.data == (PAGES / part).read_bytes()
    others = ("nothing.js", "../templates/docs.html", "../../app.py", "vendor", "n" * 5000, "%00")
    for other in others:
        assert browser.get(f"/client/{other}").status_code == 404, other


def test_every_import_of_a_script_leads_to_one(browser: FlaskClient) -> None:
    imports = [
        (PAGES / part).parent.relative_to(PAGES) / found
        for part in PARTS
        if part.endswith(".js") and "vendor" not in part
        for found in re.findall(r'from "\./(.+)"', (PAGES / part).read_text())
    ]
    assert imports
    assert {path.as_posix() for path in imports} <= set(PARTS)


def test_an_id_that_a_script_looks_for_is_on_the_page(browser: FlaskClient) -> None:
    wanted = set(re.findall(r'\bat\("([\w-]+)"\)', (PAGES / "client" / "app.js").read_text()))
    assert wanted
    assert wanted <= Inspected(browser.get("/").text).ids


def test_whoever_has_it_already_is_told_so_and_others_get_it_compressed(
    browser: FlaskClient,
) -> None:
    part = "/client/vendor/livekit-client.umd.js"
    plain, zipped = (browser.get(part, headers={"Accept-Encoding": e}) for e in ("", "br, gzip"))
    assert gzip.decompress(zipped.data) == plain.data
    assert len(zipped.data) < len(plain.data) / 3
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert plain.headers["ETag"] != zipped.headers["ETag"]
    for known in (plain, zipped):
        assert "Accept-Encoding" in known.headers["Vary"]
        encoding = "gzip" if known is zipped else ""
        again = browser.get(
            part, headers={"If-None-Match": known.headers["ETag"], "Accept-Encoding": encoding}
        )
        assert (again.status_code, again.data) == (304, b"")


def test_the_sdk_is_the_one_that_is_tested_and_written_down() -> None:
    script = (vendor.FOLDER / vendor.SCRIPT).read_bytes()
    assert (vendor.FOLDER / "VERSION").read_text() == vendor.version_text(script)
    bundled = (vendor.FOLDER / "LICENSE-bundled").read_text()
    for name in vendor.locked(vendor.PACKAGE)["dependencies"]:
        assert f"==== {name} " in bundled
