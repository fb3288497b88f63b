"""Who answers a request, the loop or a thread, and does anybody wait for somebody else's?"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from devstack import PROJECT_ROOT
from web.worker import _DISTRUST_S

SESSION, OTHER = "/api/v1/dispatches", "/other"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """gunicorn with one process of our worker."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        listener.set_inheritable(True)
        command = [sys.executable, "-m", "gunicorn", "--worker-class", "web.worker.PatientWorker"]
        command += ["--bind", f"fd://{listener.fileno()}", "--workers", "1", "--threads", "4"]
        command += ["--no-control-socket", "tests.integration.web_worker_app:app"]
        with (tmp_path / "gunicorn.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=PROJECT_ROOT,
                env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
                pass_fds=[listener.fileno()],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                yield f"http://127.0.0.1:{listener.getsockname()[1]}"
            finally:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@pytest.fixture
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, trust_env=False, timeout=15) as client:
        assert client.get(OTHER).status_code == 200  # it is up
        yield client


def by(http: httpx.Client, *, wait_s: float = 0.0) -> str:
    return str(http.post(SESSION, headers={"Wait": str(wait_s)}).json()["by"])


def test_the_loop_answers_who_asks_for_a_session_and_threads_everybody_else(
    http: httpx.Client,
) -> None:
    assert [by(http) for _ in range(5)] == ["loop"] * 5
    assert http.get(OTHER).json()["by"] == "thread"


def test_slow_ones_are_the_threads_for_a_while_and_hold_nobody_up(http: httpx.Client) -> None:
    assert by(http, wait_s=0.3) == "loop"  # nobody could know
    began = time.monotonic()
    slow = [threading.Thread(target=by, args=(http,), kwargs={"wait_s": 1.0}) for _ in range(3)]
    for each in slow:
        each.start()
    time.sleep(0.1)  # they are being answered
    assert by(http) == "thread"
    assert time.monotonic() - began < 0.7
    for each in slow:
        each.join()
    time.sleep(max(0.0, began + _DISTRUST_S + 0.2 - time.monotonic()))
    assert by(http) == "loop"


def test_those_that_come_in_a_row_are_all_answered(http: httpx.Client) -> None:
    """Deeper than Python's stack, were each answered within the answer before."""
    count = 2000
    one = f"POST {SESSION} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n".encode()
    last = one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with socket.create_connection(("127.0.0.1", http.base_url.port or 0), timeout=30) as caller:
        sending = threading.Thread(target=caller.sendall, args=(one * (count - 1) + last,))
        sending.start()
        received = b""
        while data := caller.recv(65_536):
            received += data
        sending.join()
    assert received.count(b'"by"') == count
    assert b'"thread"' in received


def test_the_answer_does_not_wait_for_what_is_left_for_afterwards(http: httpx.Client) -> None:
    began = time.monotonic()
    answered = http.post(SESSION, headers={"Leave": "0.5"}).json()
    assert time.monotonic() - began < 0.4
    assert answered["done"] == []
    # Work that fails is the log's, and keeps none of the others.
    assert http.get(OTHER).json()["done"] == ["done"]


def test_an_answer_that_is_written_is_sent_though_the_application_works_on(
    http: httpx.Client,
) -> None:
    began = time.monotonic()
    assert http.post("/written").text == "written"
    assert time.monotonic() - began < 0.7


def test_who_fails_when_it_has_written_has_answered_once(http: httpx.Client) -> None:
    one = b"POST /written HTTP/1.1\r\nHost: x\r\nFail: yes\r\nContent-Length: 0\r\n\r\n"
    with socket.create_connection(("127.0.0.1", http.base_url.port or 0), timeout=10) as caller:
        caller.sendall(one)
        received = b""
        while data := caller.recv(65_536):  # until it is closed
            received += data
    assert received.count(b"HTTP/1.1 ") == 1
    assert received.endswith(b"\r\n\r\nwritten")
    assert http.get(OTHER).status_code == 200
