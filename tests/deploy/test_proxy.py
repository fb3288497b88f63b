"""What callers get through the proxy of deploy/nginx: TLS, whole requests, streams at once.

Slow and large requests through it: tests/acceptance/test_abuse.py.
"""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from devstack import PROJECT_ROOT
from tests.acceptance.session import wait_for
from tests.conftest import free_port, wait_until_answers
from tests.integration.web.test_web_restarts import environment
from tests.support.nginx import Proxy, proxied

ENDPOINT = "/api/v1/dispatches"
KEY = {"Authorization": "Bearer key"}
OPERATOR = ("operator", "a-password-of-some-length")
MAX_BODY_BYTES = 1_000_000
HEADER_S = 10


@contextmanager
def web(redis_url: str, log: Path) -> Iterator[int]:
    """The Procfile's web as it is behind one proxy; its port."""
    port = free_port()
    own = {"USHER_TRUSTED_PROXIES": "1", "USHER_OPERATOR_AUTH": ":".join(OPERATOR)}
    with log.open("wb") as output:
        started = subprocess.Popen(
            ["deploy/run", "web"],
            cwd=PROJECT_ROOT,
            env=environment(redis_url, port) | own,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until_answers(f"http://127.0.0.1:{port}/healthz")
            yield port
        finally:
            started.terminate()
            started.wait(timeout=30)


@pytest.fixture(scope="module")
def proxy(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    directory = tmp_path_factory.mktemp("proxy")
    with web(redis_url, directory / "web.log") as port, proxied(directory, port) as proxy:
        yield proxy


def asking(proxy: Proxy, *, address: str = "127.0.0.1") -> httpx.Client:
    """A caller at that address of the machine, who trusts the proxy's certificate."""
    trusts = ssl.create_default_context(cafile=proxy.certificates.authority)
    transport = httpx.HTTPTransport(verify=trusts, local_address=address)
    return httpx.Client(
        base_url=proxy.https_url, transport=transport, headers=KEY, timeout=15, trust_env=False
    )


@contextmanager
def connected(proxy: Proxy) -> Iterator[socket.socket]:
    parts = urlsplit(proxy.http_url)
    address = (parts.hostname or "", parts.port or 0)
    with socket.create_connection(address, timeout=HEADER_S + 10) as connection:
        yield connection


def is_hung_up_on(connection: socket.socket) -> bool:
    """Wait until something comes; True when it was the end."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def test_answers_say_the_address_by_which_the_caller_came(proxy: Proxy) -> None:
    with asking(proxy) as http:
        answer = http.post(ENDPOINT, json={})

    assert answer.status_code == 200, answer.text
    assert answer.json()["status_url"].startswith(f"https://127.0.0.1{ENDPOINT}/")
    assert "max-age" in answer.headers["Strict-Transport-Security"]


def test_a_callers_own_words_about_proxies_are_not_believed(proxy: Proxy) -> None:
    said = {"X-Forwarded-Prefix": "/evil", "X-Forwarded-Proto": "http"}
    with asking(proxy) as http:
        answer = http.post(ENDPOINT, json={}, headers=said)

    assert answer.json()["status_url"].startswith(f"https://127.0.0.1{ENDPOINT}/")


def test_events_are_passed_on_when_they_happen(proxy: Proxy) -> None:
    with asking(proxy) as http:
        dispatch_id = http.post(ENDPOINT, json={}).json()["dispatch_id"]
        with http.stream("GET", f"{ENDPOINT}/{dispatch_id}/events") as stream:
            lines = stream.iter_lines()
            # The stream stays open all that time, so a proxy that waits for more has none of it.
            assert "event: snapshot" in lines
            assert http.delete(f"{ENDPOINT}/{dispatch_id}").is_success
            assert "event: end" in lines
            data = next(line for line in lines if line.startswith("data: "))
    assert json.loads(data.removeprefix("data: "))["state"] == "cancelled"


@pytest.mark.parametrize(("size", "status"), [(MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)])
def test_a_body_may_be_as_large_as_the_web_takes(proxy: Proxy, size: int, status: int) -> None:
    with asking(proxy) as http:
        answer = http.post(ENDPOINT, content=b"{}".ljust(size))

    assert answer.status_code == status
    if status == 413:
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == 413


def test_metrics_want_an_address_of_the_list_and_the_password(proxy: Proxy) -> None:
    with asking(proxy) as here, asking(proxy, address="127.0.0.2") as elsewhere:
        assert elsewhere.get("/metrics", auth=OPERATOR).status_code == 403
        assert here.get("/metrics").status_code == 401
        assert here.get("/metrics", auth=OPERATOR).status_code == 200


def test_who_sends_no_whole_header_is_hung_up_on(proxy: Proxy) -> None:
    began = time.monotonic()
    with connected(proxy) as silent, connected(proxy) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\nHo")
        time.sleep(HEADER_S / 2)
        slow.sendall(b"s")  # more of it gives no more time
        assert is_hung_up_on(slow)
        assert is_hung_up_on(silent)
    assert HEADER_S - 1 < time.monotonic() - began < HEADER_S + 5


def test_one_address_has_a_bounded_number_of_open_requests(tmp_path: Path) -> None:
    begun = f"POST {ENDPOINT} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode()
    with proxied(tmp_path, free_port(), limit_conn=3) as proxy, ExitStack() as opened:
        for _ in range(3):
            opened.enter_context(connected(proxy)).sendall(begun)
        with asking(proxy) as here, asking(proxy, address="127.0.0.2") as elsewhere:
            refused = until(lambda: here.get("/healthz"), 429)
            assert refused.headers["Content-Type"] == "application/problem+json"
            assert refused.headers["Retry-After"] == "5"
            assert elsewhere.get("/healthz").status_code == 503  # there is no web here


def until(ask: Callable[[], httpx.Response], status: int) -> httpx.Response:
    """The first answer of that status: nginx may not have read the other connections yet."""

    def look() -> httpx.Response | None:
        answer = ask()
        return answer if answer.status_code == status else None

    return wait_for(f"a {status}", look, within_s=8)


def test_without_a_web_callers_are_told_to_try_again(tmp_path: Path) -> None:
    with proxied(tmp_path, free_port()) as proxy, asking(proxy) as http:
        began = time.monotonic()
        answer = http.post(ENDPOINT, json={})

    assert time.monotonic() - began < 5
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert "participant_token" not in answer.text
