"""What callers get for ids that are none, records that cannot be read, and credentials in the wrong
place; and what a page with tracing in it may send.
"""

from __future__ import annotations

import time
from urllib.parse import quote

import jwt
import pytest
import redis
from flask.testing import FlaskClient

from dispatcher.cli.command import Exit
from dispatcher.cli.showing import look
from dispatcher.ledger.client import Ledger
from tests.support.clientsfile import LIVEKIT_SECRET, Open, a_client, a_key
from tests.support.values import TIMINGS

URL = "/api/v1/dispatches"
PAGE = "https://app.acme.example"
CLIENTS = a_client("acme", a_key("acme", "acme-key"), more=f'origins = ["{PAGE}"]') + a_client(
    "globex", a_key("globex", "globex-key")
)
KEY, OTHERS_KEY = ({"Authorization": f"Bearer {name}-key"} for name in ("acme", "globex"))
WAYS = [("GET", ""), ("GET", "/events"), ("DELETE", ""), ("POST", "/redispatch")]
OPERATOR = {"USHER_OPERATOR_AUTH": "operator:a-password-of-some-length"}


@pytest.fixture
def http(open_with: Open) -> FlaskClient:
    return open_with(CLIENTS, **OPERATOR)


def asked(http: FlaskClient) -> dict[str, str]:
    """The answer to a request for a session."""
    answer: dict[str, str] = http.post(URL, json={}, headers=KEY).json
    return answer


@pytest.mark.parametrize("wrong", [":attempts", ":timeline", "\n", "%00", "ж", "x" * 200])
@pytest.mark.parametrize(("method", "way"), WAYS)
def test_what_is_no_id_is_not_found(
    http: FlaskClient, raw: redis.Redis, method: str, way: str, wrong: str
) -> None:
    dispatch_id = asked(http)["dispatch_id"]
    raw.hset(f"usher:dispatch:{dispatch_id}:attempts", mapping={"1.tries": "1"})
    before = raw.hgetall(f"usher:dispatch:{dispatch_id}:attempts")

    answer = http.open(f"{URL}/{quote(dispatch_id + wrong)}{way}", method=method, headers=KEY)

    assert (answer.status_code, answer.mimetype) == (404, "application/problem+json")
    assert raw.hgetall(f"usher:dispatch:{dispatch_id}:attempts") == before


def test_the_command_line_and_the_dashboard_know_no_such_id_either(
    http: FlaskClient, store: Ledger, raw: redis.Redis
) -> None:
    wrong = asked(http)["dispatch_id"] + ":timeline"

    dispatch, told, code = look(store, wrong, TIMINGS)

    assert (dispatch, code) == (None, Exit.NOT_FOUND)
    assert "Unknown" in told.headline
    sign_in(http)
    shown = http.get(f"/dashboard/api/sessions/{quote(wrong)}")
    assert shown.status_code == 404
    assert "Unknown" in shown.json["explanation"]["headline"]
    assert http.get("/dashboard/api/sessions", query_string={"text": wrong}).status_code == 200


def sign_in(http: FlaskClient) -> None:
    user, _, password = OPERATOR["USHER_OPERATOR_AUTH"].partition(":")
    form = {"user": user, "password": password}
    own = {"Origin": "http://localhost", "Sec-Fetch-Site": "same-origin"}
    assert http.post("/dashboard/login", data=form, headers=own).status_code == 303


@pytest.mark.parametrize(("method", "way"), WAYS)
def test_a_record_that_cannot_be_read_is_gone_and_only_for_its_client(
    http: FlaskClient, raw: redis.Redis, method: str, way: str
) -> None:
    answer = asked(http)
    path = f"{URL}/{answer['dispatch_id']}"
    raw.hset(f"usher:dispatch:{answer['dispatch_id']}", "generation", "nonsense")

    gone = http.open(path + way, method=method, headers=KEY)

    assert (gone.status_code, gone.mimetype) == (410, "application/problem+json")
    assert "ask for a new session" in gone.json["detail"]
    if method == "GET":
        token = {"Authorization": f"Bearer {answer['participant_token']}"}
        assert http.get(path + way, headers=token).status_code == 410
    assert http.open(path + way, method=method, headers=OTHERS_KEY).status_code == 404


def test_one_record_that_cannot_be_read_hides_no_other_on_the_dashboard(
    http: FlaskClient, raw: redis.Redis
) -> None:
    broken, whole = asked(http)["dispatch_id"], asked(http)["dispatch_id"]
    for dispatch_id in (broken, whole):
        raw.hset(f"usher:dispatch:{dispatch_id}", "state", "failed")
        raw.zadd("usher:failed:acme", {dispatch_id: int(time.time() * 1000)})
    raw.hset(f"usher:dispatch:{broken}:attempts", mapping={"nonsense": "1"})
    sign_in(http)

    failures = http.get("/dashboard/api/overview").json["newest_failures"]

    assert [each["dispatch_id"] for each in failures] == [whole]
    shown = http.get(f"/dashboard/api/sessions/{broken}")
    assert (shown.status_code, "Parked" in shown.text) == (404, True)
    assert http.get(f"/dashboard/api/sessions?text={broken}").status_code == 200


def test_a_participant_token_in_the_wrong_place_is_called_one(http: FlaskClient) -> None:
    answer, other = asked(http), asked(http)
    token = {"Authorization": f"Bearer {answer['participant_token']}"}
    for method, path in (
        ("POST", URL),
        ("GET", URL),
        ("DELETE", f"{URL}/{answer['dispatch_id']}"),
        ("POST", f"{URL}/{answer['dispatch_id']}/redispatch"),
    ):
        refused = http.open(path, method=method, json={}, headers=token)
        assert refused.status_code == 401
        assert "participant token, not an API key" in refused.json["detail"]
        assert "status_url" in refused.json["detail"]
    others = http.get(f"{URL}/{other['dispatch_id']}", headers=token)
    assert (others.status_code, "did not come with" in others.json["detail"]) == (401, True)
    wrong = http.get(URL, headers={"Authorization": "Bearer nonsense"})
    assert wrong.json["detail"] == "this API key is not valid"


def test_a_participant_token_that_has_expired_is_told_so(http: FlaskClient) -> None:
    answer = asked(http)
    claims = jwt.decode(answer["participant_token"], options={"verify_signature": False})
    late = jwt.encode({**claims, "exp": int(time.time()) - 3600}, LIVEKIT_SECRET, "HS256")

    refused = http.get(
        f"{URL}/{answer['dispatch_id']}", headers={"Authorization": f"Bearer {late}"}
    )

    assert (refused.status_code, "has expired" in refused.json["detail"]) == (401, True)


@pytest.mark.parametrize(
    "tracing",
    [
        "baggage,sentry-trace",
        "traceparent,tracestate",
        "traceparent,x-datadog-origin,x-datadog-parent-id,x-datadog-sampling-priority",
        "b3,x-b3-spanid,newrelic,uber-trace-id,x-amzn-trace-id,x-cloud-trace-context",
        "x-sandbox-id",
    ],
)
def test_a_page_with_tracing_in_it_may_call(http: FlaskClient, tracing: str) -> None:
    wanted = f"authorization,content-type,{tracing}"
    answer = http.options(
        URL,
        headers={
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": wanted,
        },
    )

    assert answer.status_code == 204
    allowed = answer.headers["Access-Control-Allow-Headers"].lower().split(", ")
    assert set(wanted.split(",")) <= set(allowed)
    assert {"origin", "access-control-request-headers"} <= {
        name.strip().lower() for name in answer.headers["Vary"].split(",")
    }
    sent = dict.fromkeys(tracing.split(","), "x") | KEY | {"Origin": PAGE}
    assert http.post(URL, json={}, headers=sent).status_code == 200


def test_what_is_no_name_of_a_header_is_not_repeated(http: FlaskClient) -> None:
    answer = http.options(
        URL,
        headers={
            "Origin": PAGE,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "a b, <script>, " + "x" * 200 + ", fine",
        },
    )

    assert answer.headers["Access-Control-Allow-Headers"].endswith("Last-Event-ID, fine")
