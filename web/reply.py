"""What may an application do with the connection, beside answering?"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Final

from flask import request

# Its name in the WSGI environment.
REPLY: Final = "usher.reply"


class Reply:
    """Gives the connection away, or takes what is to be done after the answer."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection: socket.socket | None = connection
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


def after_answer(work: Callable[[], None]) -> None:
    """Do `work` when the present request has been answered; at once where nobody tells when."""
    reply = request.environ.get(REPLY)
    if isinstance(reply, Reply):
        reply.afterwards.append(work)
    else:
        work()
