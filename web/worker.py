"""How does a slow caller cost neither a thread nor the others' time?

gunicorn's threaded worker gives a connection to a thread as soon as it is accepted, and the thread
waits for the request, however slowly it comes, and for the caller to read the answer; its loop
waits for callers to hang up. Here the loop waits for no caller: a request is answered when it is
whole, and the answer is sent as fast as the caller reads. Who waits too long is closed; when there
are too many connections, it is the oldest of those that wait for the same thing.

A request for a session is answered by the loop itself, as long as that takes a few milliseconds,
together with those that have come in the same moment (`web/together.py`): threads would hold each
other up at Python's lock. All others, and these while Redis is slow, are the threads'.

What a request says and how an answer is written is `web/http1.py`'s; the threads, and how a worker
lives and ends, are gunicorn's (27).
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import socket
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum
from functools import partial
from http import HTTPStatus
from typing import Any, Final

from gunicorn.errors import ConfigError
from gunicorn.workers.gthread import ThreadWorker

from web import together
from web.headers import ALWAYS, NOTHING
from web.http1 import Answer, Refused, Request
from web.incoming import Incoming
from web.problems import MEDIA_TYPE, problem_body
from web.reply import REPLY, Reply

logger = logging.getLogger(__name__)

# From the first byte of a request (or the connection's beginning) to its last.
REQUEST_S: Final = 10.0
# For an answer. Nearly all fit into the socket's buffer at once.
ANSWER_S: Final = 30.0
# What still comes is read, for so long: hung up on before, a caller would lose its answer.
PARTING_S: Final = 2.0
# Of all requests that are not whole and answers that are not read, per process.
MAX_HELD_BYTES: Final = 64_000_000
_READ_BYTES: Final = 65_536

# What the loop answers, how many of them together, how long one may take (a mean over some eight),
# and for how long threads get it when it has taken longer: a Redis that hangs costs one time-out,
# 0.3 s, in so long. Of twenty the first waits for the last, some 30 ms on two busy cores.
_SHORT: Final = b"POST /api/v1/dispatches "
_TOGETHER: Final = 20
_SHORT_S: Final = 0.02
_OF_EIGHT: Final = 1 / 8
_DISTRUST_S: Final = 5.0
_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Waiting(Enum):
    """What the loop waits for."""

    REQUEST = "the rest of a request"
    NEXT = "the beginning of the next one"
    READER = "the caller to read the answer"
    END = "the caller to hang up"


@dataclass(eq=False, slots=True)
class Connection:
    """One caller's connection, and what the loop knows about it."""

    sock: socket.socket | None
    client: Any  # its address, as the socket's kind has it
    server: Any
    incoming: Incoming = field(default_factory=Incoming)
    outgoing: memoryview = field(default_factory=lambda: memoryview(b""))
    keep: bool = False
    waiting: Waiting | None = None
    until: float = 0.0
    held_bytes: int = 0


class PatientWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A threaded worker whose threads never wait for a caller."""

    alive: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._most = self.worker_connections
        self.worker_connections += 1  # never reached: it would stop the accepting
        self._waiting: dict[Waiting, dict[Connection, None]] = {each: {} for each in Waiting}
        self._held_bytes = 0
        self._stopping_at: float | None = None
        self._short: list[Connection] = []  # whole, and to be answered in this turn
        self._addresses: dict[Any, Any] = {}
        self._takes_s = 0.0
        self._trusts_from = 0.0
        self._patience_s = {
            Waiting.REQUEST: REQUEST_S,
            Waiting.NEXT: float(self.cfg.keepalive),
            Waiting.READER: ANSWER_S,
            Waiting.END: PARTING_S,
        }

    @classmethod
    def check_config(cls, cfg: Any, log: Any) -> None:
        """Refuse what this worker does not do.

        Raises:
            ConfigError: gunicorn is told to do TLS itself.
        """
        if cfg.is_ssl:
            raise ConfigError("Usher does no TLS itself: end it in a proxy in front of it")

    # In the loop's thread: connections come, wait and go.

    def accept(self, listener: Any) -> None:
        """Called by gunicorn when somebody knocks; who does so at the same time comes in too."""
        for _ in range(_TOGETHER):
            if not self._accept(listener):
                return

    def _accept(self, listener: Any) -> bool:
        try:
            sock, client = listener.accept()
        except OSError as error:
            if error.errno in _NO_ROOM:
                self._make_room()
            elif error.errno not in (errno.EAGAIN, errno.ECONNABORTED):
                raise
            return False
        if self.nr_conns >= self._most:
            self._make_room()
        self.nr_conns += 1
        sock.setblocking(False)
        # Perhaps the request has come already.
        self._read(Connection(sock=sock, client=client, server=self._address(listener)))
        return True

    def _address(self, listener: Any) -> Any:
        if listener not in self._addresses:
            self._addresses[listener] = listener.getsockname()
        return self._addresses[listener]

    def _wait(self, connection: Connection, waiting: Waiting) -> None:
        self._wait_no_longer(connection)
        connection.waiting = waiting
        connection.until = time.monotonic() + self._patience_s[waiting]
        self._waiting[waiting][connection] = None
        reading = waiting is not Waiting.READER
        event = selectors.EVENT_READ if reading else selectors.EVENT_WRITE
        step: Callable[[Connection], None] = self._read if reading else self._write

        def ready(_: socket.socket) -> None:
            # What happened since it was found ready may have changed that, or closed it.
            if connection.waiting is waiting:
                step(connection)

        self.poller.register(connection.sock, event, ready)

    def _wait_no_longer(self, connection: Connection) -> None:
        if connection.waiting is not None:
            del self._waiting[connection.waiting][connection]
            connection.waiting = None
            self.poller.unregister(connection.sock)

    def _read(self, connection: Connection) -> None:
        assert connection.sock is not None
        try:
            data = connection.sock.recv(_READ_BYTES)
        except BlockingIOError:
            self._go_on(connection)
            return
        except OSError:
            data = b""
        if not data:
            self._close(connection)
        elif connection.waiting is not Waiting.END:
            connection.incoming.feed(data)
            self._go_on(connection)
            if connection.waiting is Waiting.REQUEST:
                self._hold(connection, len(connection.incoming))

    def _go_on(self, connection: Connection) -> None:
        """Have the request answered if it is whole, else wait for the rest of it."""
        if connection.incoming.whole:
            self._wait_no_longer(connection)
            self._hold(connection, len(connection.incoming))
            if self._is_short(connection.incoming):
                self._short.append(connection)
            else:
                self.enqueue_req(connection)
            return
        if connection.waiting is not Waiting.REQUEST:
            self._wait(connection, Waiting.REQUEST)
        if connection.incoming.asks_to_continue:
            connection.incoming.asks_to_continue = False
            assert connection.sock is not None
            with suppress(OSError):
                connection.sock.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _is_short(self, incoming: Incoming) -> bool:
        # What a caller has sent in a row is the threads': the loop is everybody's.
        if incoming.follows or not incoming.begins_with(_SHORT):
            return False
        return time.monotonic() >= self._trusts_from

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """One turn of gunicorn's loop."""
        super().wait_for_and_dispatch_events(timeout)
        while self._short:
            first, self._short = self._short[:_TOGETHER], self._short[_TOGETHER:]
            self._answer_now(first)

    def _answer_now(self, connections: list[Connection]) -> None:
        began = time.monotonic()
        left: list[Callable[[], None]] = []
        waited_s = together.do([partial(self._answer, each, left) for each in connections])
        now = time.monotonic()
        # Each takes its own part of the time, and waits for Redis as long as all of them.
        takes_s = waited_s + (now - began - waited_s) / len(connections)
        self._takes_s += (takes_s - self._takes_s) * _OF_EIGHT
        if self._takes_s > _SHORT_S:
            self._takes_s = 0.0
            self._trusts_from = now + _DISTRUST_S
        if len(connections) == 1:
            # A caller on this machine, or its proxy, has often been woken on this very core: it
            # need not wait for the rest. Under load the kernel would have us wait for everybody.
            os.sched_yield()
        _do(left)
        for each in connections:
            self._answered(each)

    def finish_request(self, connection: Connection, future: Future[None]) -> None:
        """Called by gunicorn when a thread is done."""
        if connection.sock is not None and (future.cancelled() or future.exception() is not None):
            self._close(connection)
        else:
            self._answered(connection)

    def _answered(self, connection: Connection) -> None:
        if connection.sock is None:  # the application has taken it
            self._hold(connection, 0)
            self.nr_conns -= 1
        else:
            self._hold(connection, len(connection.incoming) + len(connection.outgoing))
            self._write(connection)

    def _write(self, connection: Connection) -> None:
        try:
            _send(connection)
        except OSError:
            self._close(connection)
            return
        if connection.outgoing:
            if connection.waiting is not Waiting.READER:
                self._wait(connection, Waiting.READER)
        elif connection.keep:
            self._hold(connection, len(connection.incoming))
            if connection.incoming:
                self._go_on(connection)
            else:
                self._wait(connection, Waiting.NEXT)
        else:
            self._part(connection)

    def _part(self, connection: Connection) -> None:
        """Say that there is no more, and let the caller hang up first (RFC 9112, 9.6)."""
        assert connection.sock is not None
        self._hold(connection, 0)
        try:
            connection.sock.shutdown(socket.SHUT_WR)
        except OSError:
            self._close(connection)
        else:
            self._wait(connection, Waiting.END)

    def _close(self, connection: Connection) -> None:
        assert connection.sock is not None
        self._wait_no_longer(connection)
        self._hold(connection, 0)
        self.nr_conns -= 1
        connection.sock.close()

    def _hold(self, connection: Connection, held_bytes: int) -> None:
        self._held_bytes += held_bytes - connection.held_bytes
        connection.held_bytes = held_bytes
        while self._held_bytes > MAX_HELD_BYTES and any(
            self._close_oldest(each) for each in (Waiting.READER, Waiting.REQUEST)
        ):
            pass

    def _close_oldest(self, waiting: Waiting) -> bool:
        oldest = next(iter(self._waiting[waiting]), None)
        if oldest is None:
            return False
        self._close(oldest)
        return True

    def _make_room(self) -> None:
        """Close the oldest of those that most are like: who comes in masses pushes out its own."""
        self._close_oldest(max(Waiting, key=lambda each: len(self._waiting[each])))

    def murder_pending(self) -> None:
        """Close what has waited too long; called by gunicorn once a second or more often."""
        now = time.monotonic()
        if not self.alive and self._stopping_at is None:
            self._stopping_at = now
        hurry = self._stopping_at is not None and now > self._stopping_at + PARTING_S
        for waiting, connections in self._waiting.items():
            for connection in list(connections) if hurry else _until(connections, now):
                if waiting is Waiting.REQUEST and connection.incoming:
                    self._wait_no_longer(connection)
                    connection.outgoing = _refusal(HTTPStatus.REQUEST_TIMEOUT)
                    connection.keep = False
                    self._write(connection)
                else:
                    self._close(connection)

    def murder_keepalived(self, force: bool = False) -> None:
        """Called by gunicorn like `murder_pending`; with `force` at the very end."""
        if force:
            for connections in self._waiting.values():
                for connection in list(connections):
                    self._close(connection)

    # In a thread of the pool, or in the loop's.

    def handle(self, connection: Connection) -> None:
        """Answer a request that is whole, and do what it leaves for afterwards."""
        left: list[Callable[[], None]] = []
        self._answer(connection, left)
        _do(left)

    def _answer(self, connection: Connection, left: list[Callable[[], None]]) -> None:
        assert connection.sock is not None
        reply = Reply(connection.sock)
        connection.keep = keep = sent = False

        def send(answer: Answer) -> None:
            nonlocal sent
            connection.outgoing = memoryview(answer.as_bytes(keep=keep))
            connection.keep, sent = keep, True
            with suppress(OSError):  # the loop will meet it too
                _send(connection)

        try:
            incoming = connection.incoming
            data, rest = incoming.take()
            request = Request(data, too_large=incoming.too_large)
            environ = request.environ(connection.client, connection.server)
            environ[REPLY] = reply
            began = time.monotonic()
            keep = request.keep and self._keeps()
            answer = Answer(request, self.wsgi, environ, send)
            if reply.taken:
                connection.sock = None
                left += reply.afterwards
                return
            if not sent:
                send(answer)
            self._count(answer, request, environ, began)
            connection.incoming = Incoming(rest, follows=True)
        except Exception as error:
            connection.keep = False
            status = _judged(error)
            if not sent:
                connection.outgoing = _refusal(status)
                with suppress(OSError):
                    _send(connection)
        left += reply.afterwards

    def _keeps(self) -> bool:
        """Whether connections are kept after the present request."""
        is_last = self.nr + 1 >= self.max_requests
        return self.alive and not is_last and self._patience_s[Waiting.NEXT] > 0

    def _count(self, answer: Answer, request: Request, environ: Any, began: float) -> None:
        """What gunicorn does with each request."""
        if self.log.access_log_enabled:
            self.log.access(answer, request, environ, timedelta(seconds=time.monotonic() - began))
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False


def _until(connections: dict[Connection, None], now: float) -> list[Connection]:
    """Those whose time is over; they stand in the order of their times."""
    over = []
    for connection in connections:
        if connection.until > now:
            break
        over.append(connection)
    return over


def _send(connection: Connection) -> None:
    """Send as much as the caller takes now. Raises OSError when it has gone."""
    assert connection.sock is not None
    with suppress(BlockingIOError):
        while connection.outgoing:
            sent = connection.sock.send(connection.outgoing)
            connection.outgoing = connection.outgoing[sent:]


def _do(work: Iterable[Callable[[], None]]) -> None:
    """What was left for after the answer."""
    for each in work:
        try:
            each()
        except Exception as error:
            logger.error("unexpected error", exc_info=error)


def _judged(error: Exception) -> HTTPStatus:
    """The status for a request that did not get as far as the application."""
    if isinstance(error, Refused):
        # Not what it says: it repeats what was sent.
        logger.info("not an HTTP request", extra={"error": str(error)})
        return error.status
    logger.error("unexpected error", exc_info=error)
    return HTTPStatus.INTERNAL_SERVER_ERROR


def _refusal(status: HTTPStatus) -> memoryview:
    """A whole answer that is an error and the last one of its connection."""
    body = problem_body(status.value, status.phrase, status.description or status.phrase)
    headers = ALWAYS | {
        "Content-Security-Policy": NOTHING,
        "Cache-Control": "no-store",
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return memoryview("\r\n".join([*lines, "", ""]).encode("latin-1") + body)
