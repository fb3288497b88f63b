"""Do the headers follow who is in front of us, and who our clients are?"""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from tests.support.clientsfile import Open, a_client, a_key

ACME = a_client("acme", a_key("acme", "acme-key"))
GLOBEX = a_client("globex", a_key("globex", "globex-key"))
LOCAL = a_client("local", a_key("local", "local-key"), url="ws://127.0.0.1:7880")


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
