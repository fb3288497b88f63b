"""Do the headers follow who is in front of us, and who our clients are?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from dispatcher.clients import registry
from dispatcher.settings import CommonSettings
from tests.clientsfile import ENVIRON, a_client, a_key
from web import create_app

ACME = a_client("acme", a_key("acme", "acme-key"))
GLOBEX = a_client("globex", a_key("globex", "globex-key"))
LOCAL = a_client("local", a_key("local", "local-key"), url="ws://127.0.0.1:7880")

Open = Callable[..., FlaskClient]


@pytest.fixture
def open_with(
    common: CommonSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    """Opens the application for these clients; keyword arguments are environment variables."""
    opened = []

    def open_(clients: str, **environ: str) -> FlaskClient:
        path = tmp_path / "clients.toml"
        path.write_text(clients)
        for name, value in {**ENVIRON, "USHER_CLIENTS_FILE": str(path), **environ}.items():
            monkeypatch.setenv(name, value)
        registry.cache_clear()
        app = create_app()
        registry.cache_clear()
        opened.append(app)
        return app.test_client()

    yield open_
    for app in opened:
        app.extensions["usher"].promises.close()
        app.extensions["usher"].key_uses.close()


def connect_src(client: FlaskClient) -> str:
    policy = client.get("/docs").headers["Content-Security-Policy"]
    (found,) = (part for part in policy.split("; ") if part.startswith("connect-src "))
    return found.removeprefix("connect-src ")


@pytest.mark.parametrize(
    ("clients", "expected"),
    [
        (ACME, "'self' wss://acme.example https://acme.example"),
        (LOCAL, "'self' ws://127.0.0.1:7880 http://127.0.0.1:7880"),
        # Who the customers are is nobody's business.
        (ACME + GLOBEX, "'self' https: wss:"),
        (ACME + LOCAL, "'self' https: wss: http: ws:"),
    ],
)
def test_a_page_may_connect_to_livekit_and_does_not_say_who_the_clients_are(
    open_with: Open, clients: str, expected: str
) -> None:
    assert connect_src(open_with(clients)) == expected


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        ("0", {}, False),
        ("0", {"X-Forwarded-Proto": "https"}, False),  # anybody can say that
        ("1", {}, False),
        ("1", {"X-Forwarded-Proto": "http"}, False),
        ("1", {"X-Forwarded-Proto": "https"}, True),
    ],
)
def test_only_who_came_by_https_is_told_to_come_by_https(
    open_with: Open, proxies: str, forwarded: dict[str, str], expected: bool
) -> None:
    client = open_with(ACME, USHER_TRUSTED_PROXIES=proxies)
    for path in ("/healthz", "/docs", "/nowhere"):
        response = client.get(path, headers=forwarded)
        assert ("Strict-Transport-Security" in response.headers) is expected


def test_a_page_of_a_clients_may_still_read_the_api(open_with: Open) -> None:
    page = "https://app.acme.example"
    clients = a_client("acme", a_key("acme", "acme-key"), more=f'origins = ["{page}"]')
    headers = {"Authorization": "Bearer acme-key", "Origin": page}
    response = open_with(clients).post("/api/v1/dispatches", json={}, headers=headers)
    assert response.status_code == 200
    assert response.headers["Access-Control-Allow-Origin"] == page
    assert response.headers["Cache-Control"] == "no-store"
