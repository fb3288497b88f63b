"""Does the door stay open while somebody misuses it?"""

from __future__ import annotations

import contextlib
import resource
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from devstack import PROJECT_ROOT
from tests.support.stacks import RunningStack

from .session import ENDPOINT, Caller, wait_for
from .slow_callers import KINDS

pytestmark = pytest.mark.outage

ANSWERED_WITHIN_S = 1.0
BODY_BYTES = 100_000_000
GROWS_BY_AT_MOST = 30_000_000
PIECE = b" " * 100_000


def port_of(door: str) -> int:
    port = urlsplit(door).port
    assert port
    return port


def web_memory(stack: RunningStack) -> int:
    """Bytes that all of the web's processes hold."""
    found = 0
    for pid in stack.pids("web"):
        with contextlib.suppress(psutil.NoSuchProcess):
            found += psutil.Process(pid).memory_info().rss
    return found


class Honest:
    """Asks for a record again and again, each time on a new connection, and keeps the times."""

    def __init__(self, stack: RunningStack, door: str) -> None:
        self._stack = stack
        self._door = door
        self._done = threading.Event()
        self.times_s: list[float] = []
        self.failures: list[str] = []
        self._thread = threading.Thread(target=self._ask, name="honest")

    def __enter__(self) -> Honest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def until_answered(self, times: int, *, within_s: float = 60) -> None:
        """Return when it has been answered so often."""
        wait_for(f"{times} answers", lambda: len(self.times_s) >= times or None, within_s=within_s)

    def _ask(self) -> None:
        while not self.times_s or not self._done.wait(0.05):
            caller = Caller(self._stack)
            caller.http.base_url = self._door
            began = time.monotonic()
            try:
                with caller.http:
                    response = caller.http.get(f"{ENDPOINT}?limit=1", timeout=5)
                assert response.status_code == 200, response.text
            except (httpx.HTTPError, AssertionError) as error:
                self.failures.append(repr(error))
            self.times_s.append(time.monotonic() - began)


@contextlib.contextmanager
def slow_callers(door: str, kind: str, count: int, seconds: float) -> Iterator[None]:
    """From the moment when all of them are connected until the block ends, or they give up."""
    arguments = [str(port_of(door)), str(count), str(seconds), kind]
    callers = subprocess.Popen(
        [sys.executable, "-m", "tests.acceptance.slow_callers", *arguments],
        cwd=PROJECT_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert callers.stdin is not None
    assert callers.stdout is not None
    try:
        assert callers.stdout.readline() == "ready\n", f"not {count} {kind} ones in {seconds} s"
        yield
        assert callers.poll() is None, "they had given up before the others were done"
        callers.stdin.close()
        print(kind, callers.stdout.read().strip())
        assert callers.wait(timeout=seconds + 10) == 0
    finally:
        callers.kill()
        callers.wait()
        callers.stdin.close()
        callers.stdout.close()


def assert_served(honest: Honest, *, at_least: int) -> None:
    assert honest.failures == []
    assert len(honest.times_s) >= at_least
    print(f"{len(honest.times_s)} answers, the slowest after {max(honest.times_s) * 1000:.0f} ms")
    assert max(honest.times_s) < ANSWERED_WITHIN_S


def with_length() -> Iterator[bytes]:
    yield b"Content-Length: %d\r\n\r\n" % BODY_BYTES
    for _ in range(BODY_BYTES // len(PIECE)):
        yield PIECE


def in_chunks() -> Iterator[bytes]:
    yield b"Transfer-Encoding: chunked\r\n\r\n"
    for _ in range(BODY_BYTES // len(PIECE)):
        yield b"%x\r\n%b\r\n" % (len(PIECE), PIECE)
    yield b"0\r\n\r\n"


@pytest.mark.parametrize("body", [with_length, in_chunks])
def test_a_body_of_100_megabytes_is_refused_before_it_has_been_sent(
    stack: RunningStack, caller: Caller, door: str, body: Callable[[], Iterator[bytes]]
) -> None:
    before = web_memory(stack)
    with Honest(stack, door) as honest:
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", port_of(door)), timeout=5) as connection:
            head = (
                f"POST {ENDPOINT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stack.api_key}\r\n"
            )
            connection.sendall(head.encode())
            sent, answer, answered_s = 0, b"", 0.0
            with contextlib.suppress(ConnectionError):
                for piece in body():
                    connection.sendall(piece)
                    sent += len(piece)
                    time.sleep(0.001)  # as from afar; loopback would be done at once
                    if not answer:
                        connection.setblocking(False)
                        with contextlib.suppress(BlockingIOError):
                            answer = connection.recv(65_536)
                            answered_s = time.monotonic() - began
                        connection.settimeout(5)
        honest.until_answered(5)
    assert answer.startswith(b"HTTP/1.1 413 "), answer
    assert b"application/problem+json" in answer
    assert answered_s < ANSWERED_WITHIN_S
    assert sent > 10_000_000, "the answer could not be read while the body was being sent"
    assert web_memory(stack) - before < GROWS_BY_AT_MOST
    assert_served(honest, at_least=5)
    assert caller.http.get("/healthz").status_code == 200


def test_bodies_that_never_end_do_not_fill_the_memory(stack: RunningStack, door: str) -> None:
    before = web_memory(stack)
    head = f"POST {ENDPOINT} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n".encode()
    with contextlib.ExitStack() as opened, Honest(stack, door) as honest:
        for _ in range(300):
            connection = socket.create_connection(("127.0.0.1", port_of(door)), timeout=5)
            opened.enter_context(connection)
            with contextlib.suppress(ConnectionError):
                connection.sendall(head + PIECE * 9)
        time.sleep(0.5)  # until what is on its way has come
        honest.until_answered(5)
        grown = web_memory(stack) - before
    print(f"grown by {grown / 1e6:.0f} MB")
    assert grown < 220_000_000  # of 270 MB that were sent
    assert_served(honest, at_least=5)


def test_slow_callers_of_every_kind_keep_nobody_else_waiting(
    stack: RunningStack, door: str
) -> None:
    with contextlib.ExitStack() as callers:
        for kind in KINDS:
            callers.enter_context(slow_callers(door, kind, 200, 90))
        with Honest(stack, door) as honest:
            time.sleep(3)  # as long as they are to be there
            honest.until_answered(10)
    assert_served(honest, at_least=10)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["silent", "headers", "body"])
def test_ten_thousand_slow_callers_keep_nobody_else_waiting(
    stack: RunningStack, door: str, kind: str
) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert hard == resource.RLIM_INFINITY or hard > 10_500, "this machine allows too few files"
    before = web_memory(stack)
    with slow_callers(door, kind, 10_000, 90), Honest(stack, door) as honest:
        time.sleep(15)  # so that the honest caller is answered while they are all there
        grown = web_memory(stack) - before
    assert_served(honest, at_least=100)
    assert grown < 150_000_000
    with Honest(stack, door) as after:
        time.sleep(2)  # time for some ten honest requests
    assert_served(after, at_least=10)
    assert len(stack.pids("web")) >= 3, "a process of the web has died"
