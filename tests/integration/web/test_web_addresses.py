"""The web listens where it is told to: at a Unix socket, at an IPv6 address, at all addresses."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from devstack import PROJECT_ROOT
from tests.acceptance.session import wait_for
from tests.conftest import free_port
from tests.integration.web.test_web_restarts import ALONE, environment
from web.server.listening import address

pytestmark = pytest.mark.apart

URL = "/api/v1/dispatches"
KEY = {"Authorization": "Bearer key"}


@pytest.mark.parametrize(
    ("host", "bind"),
    [
        ("127.0.0.1", "127.0.0.1:80"),
        ("usher.internal", "usher.internal:80"),
        ("::", "[::]:80"),
        ("2001:db8::1", "[2001:db8::1]:80"),
        ("[::1]", "[::1]:80"),
        ("unix:/run/usher.sock", "unix:/run/usher.sock"),
    ],
)
def test_a_host_is_written_as_gunicorn_reads_it(host: str, bind: str) -> None:
    assert address(host, "80") == bind


@contextmanager
def web(redis_url: str, log: Path, port: int, **environ: str) -> Iterator[None]:
    """The Procfile's web, for as long as the block lasts."""
    with log.open("wb") as output:
        started = subprocess.Popen(
            ALONE,
            cwd=PROJECT_ROOT,
            env={**environment(redis_url, port), "USHER_METRICS_LOCAL": "true", **environ},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield
        finally:
            started.terminate()
            started.wait(timeout=30)
    assert "Traceback" not in log.read_text()


def is_listened_at(path: Path) -> bool | None:
    """True when a connection to that Unix socket is taken (httpx leaves one that fails open)."""
    with socket.socket(socket.AF_UNIX) as probe:
        return True if probe.connect_ex(str(path)) == 0 else None


def answered(http: httpx.Client, host: str) -> None:
    """Return when a request for a session has been answered with addresses at `host`."""

    def look() -> httpx.Response | None:
        try:
            return http.post(f"http://{host}{URL}", json={}, headers=KEY)
        except httpx.TransportError:
            return None

    answer = wait_for("an answer", look, within_s=60)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["status_url"] == f"http://{host}{URL}/{told['dispatch_id']}"


@pytest.mark.parametrize("setting", ["USHER_WEB_HOST", "GUNICORN_CMD_ARGS"])
def test_at_a_unix_socket(redis_url: str, tmp_path: Path, setting: str) -> None:
    path = tmp_path / "web.sock"
    option = "" if setting == "USHER_WEB_HOST" else "--bind "
    with socket.socket(socket.AF_UNIX) as left_behind:  # and nobody listens there any more
        left_behind.bind(str(path))
    with (
        web(redis_url, tmp_path / "web.log", free_port(), **{setting: f"{option}unix:{path}"}),
        httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as http,
    ):
        wait_for("the web", lambda: is_listened_at(path), within_s=60)
        answered(http, "usher.example")
        # Who calls cannot be told, so it counts as nobody on this machine.
        assert http.get("http://localhost/metrics").status_code == 401


def test_a_path_that_is_no_socket_is_told_in_one_line(redis_url: str, tmp_path: Path) -> None:
    path = tmp_path / "a-file"
    path.touch()
    environ = environment(redis_url, free_port()) | {"USHER_WEB_HOST": f"unix:{path}"}

    ran = subprocess.run(
        ALONE, cwd=PROJECT_ROOT, env=environ, capture_output=True, text=True, timeout=60
    )

    assert ran.returncode == 1
    assert f"cannot listen at {path}: it is no socket" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.skipif(not socket.has_ipv6, reason="this machine has no IPv6")
def test_at_an_ipv6_address(redis_url: str, tmp_path: Path) -> None:
    port = free_port()
    with (
        web(redis_url, tmp_path / "web.log", port, USHER_WEB_HOST="::1"),
        httpx.Client(trust_env=False) as http,
    ):
        answered(http, f"[::1]:{port}")
        assert http.get(f"http://[::1]:{port}/metrics").status_code == 200


# In a network of its own, so that nobody else's door is opened at every address.
AT_EVERY_ADDRESS = """
import subprocess, sys
import httpx
from tests.conftest import wait_until_answers
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
web = subprocess.Popen(sys.argv[1:])
try:
    for host in ("[::1]", "127.0.0.1"):
        wait_until_answers(f"http://{host}:8080/healthz")
        print(host, httpx.get(f"http://{host}:8080/metrics", trust_env=False).status_code)
finally:
    web.terminate()
    web.wait(timeout=30)
"""


@pytest.mark.skipif(not shutil.which("unshare"), reason="no network of one's own can be made here")
def test_at_every_address_of_both_kinds(redis_url: str) -> None:
    ran = subprocess.run(
        ["unshare", "--map-root-user", "--net", sys.executable, "-c", AT_EVERY_ADDRESS, *ALONE],
        cwd=PROJECT_ROOT,
        env={
            **environment("redis://127.0.0.1:1", 8080),
            "USHER_WEB_HOST": "::",
            "USHER_METRICS_LOCAL": "true",
            "PYTHONPATH": str(PROJECT_ROOT),
        },
        capture_output=True,
        text=True,
        timeout=90,
    )

    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.splitlines() == ["[::1] 200", "127.0.0.1 200"]
