"""How does an answer that lasts for hours not hold one of gunicorn's threads?

Its connection is taken away from gunicorn, which gives its socket to the application
(`environ["gunicorn.socket"]`) and ends the work on a request whose application raises StopIteration
(flask-sock takes WebSockets over in the same way). What gunicorn then does to its socket, shutting
it down for one, happens to another one that has been put in the place of the caller's.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, NoReturn

from flask import Response, request

from web.problems import Problem

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# Gets the connection and the head of the answer, which it has to send.
TakeOver = Callable[[socket.socket, bytes], None]


def check_detachable() -> None:
    """Refuse where the connection cannot be taken over.

    Raises:
        Problem: 501, the server is not gunicorn, or does TLS or HTTP/2 itself.
    """
    connection = request.environ.get("gunicorn.socket")
    # An SSLSocket is a socket too, but of a class of its own.
    plain = type(connection) is socket.socket
    if not plain or not request.environ["SERVER_PROTOCOL"].startswith("HTTP/1"):
        raise Problem(
            501,
            "Not Implemented",
            "this server cannot stream; run Usher under gunicorn, with TLS ended before it, "
            "or ask for the dispatch itself from time to time",
        )


class Detached(Response):
    """An answer whose connection somebody else serves from its first byte on."""

    def __init__(self, take_over: TakeOver, *, mimetype: str) -> None:
        super().__init__(mimetype=mimetype)
        self._take_over = take_over

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "HEAD":
            return super().__call__(environ, start_response)
        self._detach(environ)

    def _detach(self, environ: dict[str, Any]) -> NoReturn:
        connection: socket.socket = environ["gunicorn.socket"]
        ours = connection.dup()
        theirs, nobody = socket.socketpair()
        nobody.close()
        os.dup2(theirs.fileno(), connection.fileno(), inheritable=False)
        theirs.close()
        self._take_over(ours, self._head())
        raise StopIteration

    def _head(self) -> bytes:
        status = HTTPStatus(self.status_code)
        lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
        lines += [f"{name}: {value}" for name, value in self.headers if name != "Content-Length"]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1")
