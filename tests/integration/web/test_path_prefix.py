"""Behind a proxy that serves Usher under a path, links, cookies and redirects carry the path."""

from __future__ import annotations

import re

import pytest
import redis
from flask.testing import FlaskClient

from tests.support.clientsfile import Open, a_client, a_key
from web.path_prefix import prefix_of

URL = "/api/v1/dispatches"
KEY = {"Authorization": "Bearer acme-key"}
CLIENTS = a_client("acme", a_key("acme", "acme-key"))
UNDER = {"X-Forwarded-Prefix": "/usher", "X-Forwarded-Proto": "https"}
OWN = {"Origin": "https://localhost", "Sec-Fetch-Site": "same-origin"}
OPERATOR = {"USHER_OPERATOR_AUTH": "operator:a-password-of-some-length"}


@pytest.fixture
def http(open_with: Open) -> FlaskClient:
    return open_with(CLIENTS, USHER_TRUSTED_PROXIES="1", **OPERATOR)


@pytest.mark.parametrize(
    ("forwarded", "proxies", "prefix"),
    [
        ("/usher", 1, "/usher"),
        ("/usher/", 1, "/usher"),
        ("/", 1, ""),
        ("/voice/usher", 2, "/voice/usher"),
        ("/voice, /usher", 2, "/voice/usher"),  # each of two proxies has taken its part off
        ("/usher", 2, "/usher"),  # one of two
        ("/evil, /usher", 1, "/usher"),  # the first is the caller's own word
        ("//evil.example", 1, ""),
        ("https://evil.example", 1, ""),
        ("usher", 1, ""),
        ("/../usher", 1, ""),
        ('/"onload=', 1, ""),
    ],
)
def test_a_prefix_is_a_path_that_our_own_proxies_have_said(
    forwarded: str, proxies: int, prefix: str
) -> None:
    assert prefix_of(forwarded, proxies=proxies) == prefix


def test_the_addresses_of_an_answer_carry_it(http: FlaskClient, raw: redis.Redis) -> None:
    answer = http.post(URL, json={}, headers=KEY | UNDER).json
    here = f"https://localhost/usher{URL}/{answer['dispatch_id']}"

    assert answer["status_url"] == here
    assert answer["events_url"] == f"{here}/events"
    http.delete(f"{URL}/{answer['dispatch_id']}", headers=KEY | UNDER)
    raw.hset(f"usher:dispatch:{answer['dispatch_id']}", "requested_at_ms", 0)  # long ago
    again = http.post(f"{URL}/{answer['dispatch_id']}/redispatch", headers=KEY | UNDER)
    assert (again.status_code, again.headers["Location"]) == (202, here)
    api = http.get("/openapi.json", headers=UNDER).json
    assert api["servers"] == [{"url": "/usher"}]


def test_without_a_trusted_proxy_it_is_anybodys_claim(open_with: Open) -> None:
    http = open_with(CLIENTS)

    answer = http.post(URL, json={}, headers=KEY | UNDER).json

    assert answer["status_url"].startswith(f"http://localhost{URL}/")
    assert http.get("/openapi.json", headers=UNDER).json["servers"] == [{"url": "/"}]
    assert 'href="/client/' in http.get("/", headers=UNDER).text


@pytest.mark.parametrize(
    "page", ["/", "/docs", "/dashboard/login", "/dashboard", "/dashboard/sessions"]
)
def test_every_link_of_a_page_leads_to_where_the_proxy_serves_it(
    http: FlaskClient, page: str
) -> None:
    sign_in(http)
    text = http.get(page, headers=UNDER).text

    links = re.findall(r'(?:href|src|action)="([^"#]+)', text)
    assert links
    for link in links:
        assert link.startswith("/usher/"), link
        path = link.removeprefix("/usher")
        assert http.get(path, headers=UNDER).status_code in (200, 405), link
    assert '<html data-prefix="/usher"' in text
    plain = http.get(page, headers={"X-Forwarded-Proto": "https"}).text
    assert "data-prefix" not in plain
    assert '"/usher' not in plain


def sign_in(http: FlaskClient) -> None:
    form = {"user": "operator", "password": "a-password-of-some-length", "next": "/dashboard"}
    answer = http.post("/dashboard/login", data=form, headers=UNDER | OWN)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/usher/dashboard")
    attributes = answer.headers["Set-Cookie"].split("; ")
    assert "Path=/usher/dashboard" in attributes
    # The test's browser sees the paths as they are behind the proxy.
    name, _, value = attributes[0].partition("=")
    http.set_cookie(name, value, path="/dashboard", secure=True)


def test_who_is_not_signed_in_is_led_to_the_form_and_back(http: FlaskClient) -> None:
    led = http.get("/dashboard/sessions?state=failed", headers=UNDER)

    assert led.status_code == 303
    there = "/usher/dashboard/login?next=/dashboard/sessions?state=failed"
    assert led.headers["Location"] == there
    out = http.post("/dashboard/logout", headers=UNDER | OWN)
    assert out.headers["Location"] == "/usher/dashboard/login?out"
    assert "Path=/usher/dashboard" in out.headers["Set-Cookie"].split("; ")
