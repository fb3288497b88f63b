"""Who gets to see the dashboard, for how long, and what is never shown on it?"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import redis
from flask import Flask
from flask.testing import FlaskClient
from itsdangerous import TimestampSigner, URLSafeTimedSerializer
from werkzeug.test import TestResponse

from dispatcher.clients.registry import registry
from dispatcher.settings import CommonSettings
from tests.support.clientsfile import LIVEKIT_SECRET
from tests.support.ledgers import Told, fill
from web import create_app
from web.auth import operator
from web.state.abuse_limits import MAX_WRONG_PASSWORDS, WRONG_KEYS_WINDOW_S, WrongPasswords
from web.state.cache import Snapshots

USER, PASSWORD = "operator", "a-password-of-some-length"
LOGIN, API = "/dashboard/login", "/dashboard/api"
OWN = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
Open = Callable[..., FlaskClient]


def settings(auth: str = f"{USER}:{PASSWORD}", **more: str) -> dict[str, str]:
    """The environment of a web process."""
    return {
        "LIVEKIT_URL": "ws://127.0.0.1:1",
        "LIVEKIT_API_KEY": "key",
        "LIVEKIT_API_SECRET": LIVEKIT_SECRET,
        "USHER_CLIENT_ID": "acme",
        "USHER_API_KEY_SHA256": hashlib.sha256(b"key").hexdigest(),
        "USHER_OPERATOR_AUTH": auth,
        **more,
    }


def opened(patch: pytest.MonkeyPatch, values: dict[str, str]) -> Flask:
    for name, value in values.items():
        patch.setenv(name, value)
    registry.cache_clear()
    app = create_app()
    registry.cache_clear()
    return app


@pytest.fixture
def door(common: CommonSettings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """The application, as another process of the same deployment each time it is opened."""
    apps = []

    def open_with(auth: str = f"{USER}:{PASSWORD}", **more: str) -> FlaskClient:
        apps.append(opened(monkeypatch, settings(auth, **more)))
        return apps[-1].test_client()

    yield open_with
    for app in apps:
        app.extensions["usher"].promises.close()


@pytest.fixture(scope="module")
def app(redis_url: str) -> Iterator[Flask]:
    """One process for all tests that need nothing special."""
    with pytest.MonkeyPatch.context() as patch:
        made = opened(patch, settings() | {"REDIS_URL": redis_url, "USHER_REDIS_TIMEOUT_S": "5"})
    yield made
    made.extensions["usher"].promises.close()


@pytest.fixture
def browser(app: Flask, raw: redis.Redis) -> FlaskClient:
    """A browser that knows nothing, at a process that has seen nothing, with an empty Redis."""
    ours = app.extensions["usher"]
    fresh = {"snapshots": Snapshots(), "wrong_passwords": WrongPasswords(ours.ledger)}
    app.extensions["usher"] = replace(ours, **fresh)
    return app.test_client()


def sign_in(browser: FlaskClient, password: str = PASSWORD, **form: str) -> TestResponse:
    return browser.post(LOGIN, data={"user": USER, "password": password, **form}, headers=OWN)


def cookie(browser: FlaskClient) -> str:
    found = browser.get_cookie(operator.COOKIE, path=operator.PATH)
    return found.value if found else ""


def status_with(browser: FlaskClient, value: str) -> int:
    """What the API answers to whoever has that cookie."""
    browser.set_cookie(operator.COOKIE, value, path=operator.PATH)
    return browser.get(f"{API}/overview").status_code


def test_without_a_session_there_is_a_form_and_no_data(browser: FlaskClient) -> None:
    for path in ("/dashboard", "/dashboard/sessions", "/dashboard/sessions/dsp_1?x=1"):
        answer = browser.get(path)
        assert (answer.status_code, answer.location) == (303, f"{LOGIN}?next={path}")
    for path in ("overview", "sessions", "sessions/dsp_1"):
        answer = browser.get(f"{API}/{path}")
        assert (answer.status_code, answer.mimetype) == (401, "application/problem+json")
    # An API key is nobody's password here.
    key = {"Authorization": "Bearer key"}
    assert browser.get(f"{API}/overview", headers=key).status_code == 401
    assert browser.get(LOGIN).status_code == 200


def test_the_session_is_a_cookie_that_only_we_are_sent(door: Open, browser: FlaskClient) -> None:
    answer = sign_in(browser, next="/dashboard/sessions?state=failed")
    assert (answer.status_code, answer.location) == (303, "/dashboard/sessions?state=failed")
    attributes = set(answer.headers["Set-Cookie"].split("; ")[1:])
    assert {"HttpOnly", "SameSite=Strict", "Path=/dashboard", "Max-Age=43200"} <= attributes
    assert "Secure" not in attributes
    assert PASSWORD not in answer.headers["Set-Cookie"]
    assert browser.get("/dashboard").status_code == 200
    assert browser.get(f"{API}/overview").status_code == 200

    over_tls = door(USHER_TRUSTED_PROXIES="1")
    tls = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1"}
    answer = over_tls.post(LOGIN, data={"user": USER, "password": PASSWORD}, headers=OWN | tls)
    assert "Secure" in answer.headers["Set-Cookie"].split("; ")


def test_a_session_holds_in_every_process_until_the_password_changes(
    door: Open, browser: FlaskClient
) -> None:
    sign_in(browser)
    assert status_with(door(), cookie(browser)) == 200
    assert status_with(door(f"{USER}:{PASSWORD}-2"), cookie(browser)) == 401
    assert status_with(door(f"somebody:{PASSWORD}"), cookie(browser)) == 401


def test_a_session_ends_after_half_a_day_and_cannot_be_made_up(browser: FlaskClient) -> None:
    ours = operator._serializer(f"{USER}:{PASSWORD}")

    class Then(TimestampSigner):
        """Signs as of another moment."""

        at = time.time()

        def get_timestamp(self) -> int:
            return int(self.at)

    def made(then_s: float, key: list[bytes] = ours.secret_keys) -> int:
        signer = type("AtThen", (Then,), {"at": time.time() + then_s})
        serializer = URLSafeTimedSerializer(
            key, salt=operator.COOKIE, signer=signer, signer_kwargs=ours.signer_kwargs
        )
        value = serializer.dumps("operator")
        assert isinstance(value, str)
        return status_with(browser, value)

    assert made(0) == 200
    assert made(-operator.SESSION_S + 60) == 200
    assert made(-operator.SESSION_S - 60) == 401
    assert made(3600) == 401  # a clock that is wrong, or somebody's own idea
    assert made(0, [b"guessed"]) == 401


def test_signing_out_takes_the_cookie_away(browser: FlaskClient) -> None:
    sign_in(browser)
    answer = browser.post("/dashboard/logout", headers=OWN)
    assert (answer.status_code, answer.location) == (303, f"{LOGIN}?out")
    assert cookie(browser) == ""
    assert "You have signed out" in browser.get(f"{LOGIN}?out").text


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example/", "//evil.example", "/dashboard/../", "/dashboard\\@evil", "/", ""],
)
def test_signing_in_leads_nowhere_else(browser: FlaskClient, elsewhere: str) -> None:
    assert sign_in(browser, next=elsewhere).location == "/dashboard"
    form = browser.get(LOGIN, query_string={"next": elsewhere}).text
    assert 'name="next" value="/dashboard"' in form


@pytest.mark.parametrize(
    "foreign",
    [
        {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://other.localhost", "Sec-Fetch-Site": "same-site"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ],
)
def test_another_sites_form_is_refused(browser: FlaskClient, foreign: dict[str, str]) -> None:
    data = {"user": USER, "password": PASSWORD}
    assert browser.post(LOGIN, data=data, headers=foreign).status_code == 403
    sign_in(browser)
    assert browser.post("/dashboard/logout", headers=foreign).status_code == 403
    assert cookie(browser)


def test_a_link_from_a_chat_gets_the_page_which_asks_by_itself(browser: FlaskClient) -> None:
    # Coming from another site the browser does not send the cookie yet.
    answer = browser.get("/dashboard/sessions/dsp_1", headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 200
    assert "dsp_1" not in answer.text


def test_whoever_guesses_is_soon_not_listened_to(browser: FlaskClient) -> None:
    for _ in range(MAX_WRONG_PASSWORDS):
        wrong = sign_in(browser, "wrong-password-of-some-length")
        assert wrong.status_code == 401
        assert "User or password is wrong" in wrong.text
    refused = sign_in(browser)
    assert refused.status_code == 429
    assert 0 < int(refused.headers["Retry-After"]) <= WRONG_KEYS_WINDOW_S
    assert not cookie(browser)
    # Others are not held up by that.
    elsewhere = browser.post(
        LOGIN,
        data={"user": USER, "password": PASSWORD},
        headers=OWN,
        environ_base={"REMOTE_ADDR": "192.0.2.7"},
    )
    assert elsewhere.status_code == 303


def test_without_a_credential_it_says_how_to_switch_it_on(door: Open) -> None:
    browser = door("")
    for path in ("/dashboard", "/dashboard/sessions/dsp_1", LOGIN):
        answer = browser.get(path)
        assert (answer.status_code, answer.mimetype) == (403, "text/html")
        assert "USHER_OPERATOR_AUTH=&lt;user&gt;:&lt;password&gt;" in answer.text
    assert browser.post(LOGIN, data={"user": "", "password": ""}).status_code == 403
    assert browser.get(f"{API}/overview").status_code == 403


def test_the_headers_allow_nothing_but_its_own_parts(browser: FlaskClient) -> None:
    sign_in(browser)
    for path in ("/dashboard", "/dashboard/sessions", "/dashboard/sessions/dsp_1", LOGIN):
        answer = browser.get(path)
        policy = answer.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "script-src 'self'; style-src 'self'" in policy
        assert "connect-src 'self'; form-action 'self'" in policy
        assert answer.headers["X-Frame-Options"] == "DENY"
        assert answer.headers["Referrer-Policy"] == "same-origin"
    assert browser.get(f"{API}/overview").headers["Cache-Control"] == "no-store"


def test_whoever_has_the_newest_is_told_so(browser: FlaskClient, raw: redis.Redis) -> None:
    sign_in(browser)
    fill(raw, [Told(number=n, ends_as="ended") for n in range(3)])
    first = browser.get(f"{API}/sessions")
    same = {"If-None-Match": first.headers["ETag"]}
    assert browser.get(f"{API}/sessions", headers=same).status_code == 304
    fill(raw, [Told(number=4, ends_as="failed")])
    until = time.monotonic() + 10
    while (again := browser.get(f"{API}/sessions", headers=same)).status_code == 304:
        assert time.monotonic() < until, "it never changes"
        time.sleep(0.05)
    assert len(again.json["sessions"]) == 4


def test_a_question_that_makes_no_sense_is_a_422_that_names_it(
    browser: FlaskClient, raw: redis.Redis
) -> None:
    sign_in(browser)
    fill(raw, [Told(number=1, ends_as="queued")])
    for query, field in (
        ("overview?window=2h", "window"),
        ("sessions?state=lost", "state"),
        ("sessions?cursor=x", "cursor"),
        ("sessions?since_s=-1", "since_s"),
        ("sessions?limit=1000", "limit"),
    ):
        answer = browser.get(f"{API}/{query}")
        assert answer.status_code == 422, query
        assert answer.json["errors"][0]["field"] == field
    # Of a client that there is no more nothing is shown, and not everything either.
    assert browser.get(f"{API}/sessions?client=globex").json["sessions"] == []
    assert len(browser.get(f"{API}/sessions?client=acme").json["sessions"]) == 1


def test_a_session_is_found_by_its_id_and_an_unknown_one_is_explained(
    door: Open, browser: FlaskClient, raw: redis.Redis
) -> None:
    sign_in(browser)
    fill(raw, [Told(number=n, ends_as="failed") for n in range(2)])
    found = browser.get(f"{API}/sessions?text=dsp_000001").json
    assert [each["dispatch_id"] for each in found["sessions"]] == ["dsp_000001"]
    shown = browser.get(f"{API}/sessions/dsp_000001").json
    assert shown["explanation"]["headline"] == "Failed: no agent server has room"
    assert [stage["name"] for stage in shown["stages"]] == ["queue_wait", "waiting"]
    unknown = browser.get(f"{API}/sessions/dsp_nobody")
    assert unknown.status_code == 404
    assert "Unknown" in unknown.json["explanation"]["headline"]
    raw.hset("usher:parked", "dsp_parked", "it makes no sense")
    another = door()  # this one has not asked for the parked ones yet
    sign_in(another)
    parked = another.get(f"{API}/sessions/dsp_parked")
    assert "Parked" in parked.json["explanation"]["headline"]


def test_what_a_client_gave_its_agent_is_not_shown(browser: FlaskClient, raw: redis.Redis) -> None:
    sign_in(browser)
    fill(raw, [Told(number=1, ends_as="failed"), Told(number=2, ends_as="joined")])
    for path in ("overview", "sessions", "sessions/dsp_000001", "sessions/dsp_000002"):
        text = browser.get(f"{API}/{path}").text
        assert "dsp_00000" in text
        assert "nobody's business" not in text
        assert not re.search(r"metadata|token|secret|\"eyJ", text)
