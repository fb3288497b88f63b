"""What does gunicorn write an answer to, when no thread is to wait for the caller to read it?"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import IO

from flask import request


class Reply:
    """Stands in for a connection's socket: collects the answer, or gives the connection away."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection: socket.socket | None = connection
        self.data = bytearray()
        self.afterwards: list[Callable[[], None]] = []  # the answer does not wait for these

    @property
    def taken(self) -> bool:
        """True when the connection is the application's."""
        return self._connection is None

    def take(self) -> socket.socket:
        """The connection itself: who takes it sends the answer, and closes it."""
        assert self._connection is not None, "the connection has been taken already"
        connection, self._connection = self._connection, None
        return connection

    def sendall(self, data: bytes) -> None:
        """As a socket's."""
        self.data += data

    def sendfile(self, file: IO[bytes], offset: int = 0, count: int | None = None) -> None:
        """As a socket's."""
        file.seek(offset)
        self.data += file.read(-1 if count is None else count)

    def shutdown(self, _: int) -> None:
        """gunicorn gives an answer up in the middle: nothing of it has been sent, and nothing will.

        Raises:
            OSError: always, so that gunicorn does not wait for the caller to hang up.
        """
        self.data.clear()
        raise OSError(errno.ENOTCONN, "nothing has been sent")

    def close(self) -> None:
        """The connection is closed by the worker."""


def after_answer(work: Callable[[], None]) -> None:
    """Do `work` when the present request has been answered; at once where nobody tells when."""
    reply = request.environ.get("gunicorn.socket")
    if isinstance(reply, Reply):
        reply.afterwards.append(work)
    else:
        work()
