"""Is an honest caller served, however its request comes, and one that never comes to an end not?"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.support.stacks import RunningStack

from .session import ENDPOINT

pytestmark = pytest.mark.outage

HEALTH = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
FOUND = b"HTTP/1.1 200 OK\r\n"


@contextlib.contextmanager
def connected(stack: RunningStack) -> Iterator[socket.socket]:
    parts = urlsplit(stack.web_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=15) as connection:
        yield connection


def answers(connection: socket.socket, count: int = 1) -> bytes:
    """What comes until so many answers have ended, or the connection has."""
    received = b""
    while received.count(b'"}\n') < count:
        data = connection.recv(65_536)
        if not data:
            break
        received += data
    return received


@pytest.mark.parametrize("step", [1, 5])
def test_a_request_may_come_in_pieces(stack: RunningStack, step: int) -> None:
    with connected(stack) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(HEALTH), step):
            connection.sendall(HEALTH[at : at + step])
            time.sleep(0.001)
        assert answers(connection).startswith(FOUND)


def test_requests_may_come_one_behind_the_other_and_at_once(stack: RunningStack) -> None:
    with connected(stack) as connection:
        connection.sendall(HEALTH * 20 + HEALTH[:10])
        assert answers(connection, 20).count(FOUND) == 20
        connection.sendall(HEALTH[10:])
        assert answers(connection).count(FOUND) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 2\r\n\r\n{}",
        b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\nX-Sum: 1\r\n\r\n",
    ],
)
def test_what_follows_a_body_is_the_next_request(stack: RunningStack, body: bytes) -> None:
    head = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"
    with connected(stack) as connection:
        connection.sendall(head + body + HEALTH)
        assert answers(connection, 2).count(FOUND) == 2


def test_who_asks_whether_to_send_the_body_is_told(stack: RunningStack) -> None:
    with connected(stack) as connection:
        connection.sendall(
            f"POST {ENDPOINT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stack.api_key}\r\n"
            "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n".encode()
        )
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(b"[1]")
        assert connection.recv(65_536).startswith(b"HTTP/1.1 422 ")


def test_one_that_may_not_send_it_is_told_so_before_it_has(stack: RunningStack) -> None:
    with connected(stack) as connection:
        connection.sendall(
            f"POST {ENDPOINT} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {stack.api_key}\r\n"
            "Expect: 100-continue\r\nContent-Length: 3000000\r\n\r\n".encode()
        )
        received = b""
        while b"HTTP/1.1 413 " not in received:
            received += (data := connection.recv(65_536))
            assert data, received
