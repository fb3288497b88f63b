"""Does every answer, whoever makes it, tell the browser what it must not do?"""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.stacks import RunningStack

from .session import ENDPOINT, Caller, end_rooms

NOWHERE = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
CONSTANT = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


def assert_hardened(headers: httpx.Headers, *, page: bool = False, cached: bool = False) -> None:
    assert {name: headers.get(name) for name in CONSTANT} == CONSTANT
    assert "microphone=(self)" in headers["permissions-policy"]
    assert "camera=()" in headers["permissions-policy"]
    policy = headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "*" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (policy == NOWHERE) is not page
    assert (headers["cache-control"] == "no-store") is not cached
    assert "strict-transport-security" not in headers  # it was not https
    assert not any(character.isdigit() for character in headers.get("server", ""))


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/healthz", 200),
        ("GET", "/readyz", 200),
        ("GET", "/openapi.json", 200),
        ("GET", "/nowhere", 404),
        ("GET", f"{ENDPOINT}/dsp_nobody", 404),
        ("PUT", ENDPOINT, 405),
        ("GET", f"{ENDPOINT}?limit=0", 422),
        ("GET", ENDPOINT, 200),
        ("HEAD", ENDPOINT, 200),
        ("OPTIONS", ENDPOINT, 200),
        ("POST", "/api/v1/webhooks/livekit", 401),
    ],
)
def test_data_and_errors_load_nothing_and_are_kept_by_nobody(
    caller: Caller, method: str, path: str, status: int
) -> None:
    response = caller.http.request(method, path)
    assert response.status_code == status
    assert_hardened(response.headers)


def test_a_page_runs_its_own_scripts_only_and_connects_to_livekit(
    stack: RunningStack, caller: Caller
) -> None:
    response = caller.http.get("/docs")
    assert response.status_code == 200
    assert_hardened(response.headers, page=True)
    policy = dict(
        part.split(" ", 1) for part in response.headers["content-security-policy"].split("; ")
    )
    assert policy["script-src"] == policy["style-src"] == "'self'"
    over_http = stack.livekit_url.replace("ws:", "http:")
    assert policy["connect-src"] == f"'self' {stack.livekit_url} {over_http}"
    style = caller.http.get("/docs.css")
    assert style.status_code == 200
    assert_hardened(style.headers, cached=True)


def test_a_token_and_a_stream_are_kept_by_nobody(stack: RunningStack, caller: Caller) -> None:
    response = caller.http.post(ENDPOINT, json={})
    assert_hardened(response.headers)
    answer = response.json()
    with caller.http.stream("GET", answer["events_url"]) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert_hardened(stream.headers)
    assert_hardened(caller.http.get(answer["status_url"]).headers)
    end_rooms(stack, answer["room_name"])


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
        (b"GET /" + b"a" * 9_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * 80_000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: odd\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: x\r\nExpect: odd\r\n\r\n", 417),
        (b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2000000\r\n\r\n", 413),
        (b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ],
)
def test_what_is_hardly_a_request_is_refused_as_a_problem_too(
    stack: RunningStack, request_: bytes, status: int
) -> None:
    parts = urlsplit(stack.web_url)
    authorized = f"{ENDPOINT} HTTP/1.1\r\nAuthorization: Bearer {stack.api_key}".encode()
    request_ = request_.replace(b"%b HTTP/1.1", authorized)
    with socket.create_connection((parts.hostname, parts.port), timeout=5) as connection:
        connection.sendall(request_)
        answer = b""
        while b"}" not in answer and (data := connection.recv(65_536)):
            answer += data
    head, _, body = answer.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    assert status_line.startswith(f"HTTP/1.1 {status} ")
    headers = httpx.Headers([tuple(line.split(": ", 1)) for line in lines])
    assert headers["content-type"] == "application/problem+json"
    assert_hardened(headers)
    assert f'"status": {status}'.encode() in body
