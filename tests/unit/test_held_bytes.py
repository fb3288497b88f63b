"""Does the web's loop know how many bytes it holds for its callers?"""

from __future__ import annotations

import os
import selectors
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.glogging import Logger

from web.reply import REPLY
from web.worker import Connection, PatientWorker, Waiting

SESSION = b"POST /api/v1/dispatches HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
LARGE = 8_000_000  # more than the kernel takes at once


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    body = b"x" * int(environ.get("HTTP_SIZE", 10))
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture
def worker() -> Iterator[PatientWorker]:
    """A worker without a master, whose loop does not run by itself."""
    config = Config()
    made = PatientWorker(1, os.getpid(), [], None, 30, config, Logger(config))
    made.wsgi = app
    made.alive = True
    with selectors.DefaultSelector() as made.poller:
        yield made
        made.murder_keepalived(force=True)
    made.tmp.close()


def called(worker: PatientWorker, request: bytes) -> tuple[Connection, socket.socket]:
    ours, callers = socket.socketpair()
    ours.setblocking(False)
    callers.sendall(request)
    connection = Connection(sock=ours, client=("127.0.0.1", 1), server=("127.0.0.1", 2))
    worker.nr_conns += 1
    worker._wait(connection, Waiting.REQUEST)
    worker.wait_for_and_dispatch_events(0)
    return connection, callers


@pytest.mark.parametrize(
    ("request_", "waiting", "held"),
    [
        (SESSION + b"\r\n", Waiting.NEXT, 0),
        (SESSION[:20], Waiting.REQUEST, 20),
        (SESSION + b"\r\n" + SESSION[:20], Waiting.REQUEST, 20),
        (SESSION + b"Connection: close\r\n\r\n" + SESSION[:20], Waiting.END, 0),
    ],
)
def test_what_is_left_of_a_request_is_held_and_no_more(
    worker: PatientWorker, request_: bytes, waiting: Waiting, held: int
) -> None:
    connection, callers = called(worker, request_)
    with callers:
        assert connection.waiting is waiting
        assert (connection.held_bytes, worker._held_bytes) == (held, held)


def test_what_is_left_for_afterwards_is_done_for_a_connection_that_is_given_away_too(
    worker: PatientWorker,
) -> None:
    done: list[str] = []

    def streams(environ: dict[str, Any], _: object) -> Iterable[bytes]:
        environ[REPLY].take().close()
        environ[REPLY].afterwards.append(lambda: done.append("done"))
        return ()

    worker.wsgi = streams
    _, callers = called(worker, SESSION + b"\r\n")
    with callers:
        assert callers.recv(1000) == b""
    assert (done, worker.nr_conns, worker._held_bytes) == (["done"], 0, 0)


def test_after_so_many_requests_as_gunicorn_was_told_the_worker_ends(worker: PatientWorker) -> None:
    worker.max_requests = 2
    for last in (False, True):
        _, callers = called(worker, SESSION + b"\r\n")
        with callers:
            assert (b"Connection: close" in callers.recv(1000)) is last
        assert worker.alive is not last


def test_an_answer_that_is_not_read_is_held_until_it_is(worker: PatientWorker) -> None:
    connection, callers = called(worker, SESSION + f"Size: {LARGE}\r\n\r\n".encode())
    with callers:
        assert connection.waiting is Waiting.READER
        assert worker._held_bytes > LARGE // 2
        received = 0
        while received < LARGE:
            received += len(callers.recv(1_000_000))
            if connection.waiting is Waiting.READER:
                worker._write(connection)
        assert worker._held_bytes == 0


def test_who_hangs_up_meanwhile_leaves_nothing_behind(worker: PatientWorker) -> None:
    ours, callers = socket.socketpair()
    ours.setblocking(False)
    callers.sendall(SESSION + b"\r\n" + SESSION[:20])
    callers.close()
    connection = Connection(sock=ours, client=("127.0.0.1", 1), server=("127.0.0.1", 2))
    worker.nr_conns += 1
    worker._wait(connection, Waiting.REQUEST)
    worker.wait_for_and_dispatch_events(0)
    assert (worker._held_bytes, worker.nr_conns) == (0, 0)
