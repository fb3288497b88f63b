"""How does an answer that lasts for hours not hold one of the server's threads?

Its connection is taken away from the worker (`web/worker.py`), whose `Reply` is in the WSGI
environment.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING

from flask import Response, request

from web.problems import Problem
from web.reply import REPLY, Reply

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# Gets the connection and the head of the answer, which it has to send.
TakeOver = Callable[[socket.socket, bytes], None]


def check_detachable() -> None:
    """Refuse where the connection cannot be taken over.

    Raises:
        Problem: 501, the server is not gunicorn with our worker.
    """
    if not isinstance(request.environ.get(REPLY), Reply):
        raise Problem(
            501,
            "Not Implemented",
            "this server cannot stream; run Usher as its Procfile does, or ask for the dispatch "
            "itself from time to time",
        )


class Detached(Response):
    """An answer whose connection somebody else serves from its first byte on."""

    def __init__(self, take_over: TakeOver, *, mimetype: str) -> None:
        super().__init__(mimetype=mimetype)
        self._take_over = take_over

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "HEAD":
            return super().__call__(environ, start_response)
        reply: Reply = environ[REPLY]
        self._take_over(reply.take(), self._head())
        return ()

    def _head(self) -> bytes:
        status = HTTPStatus(self.status_code)
        lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers if name != "Content-Length"]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")
