"""Give up on a caller that sends nothing of its body, or reads nothing of its answer, for long.

gunicorn bounds how long a request's head may take (`keepalive`), and nothing else. A proxy in front
gives a caller much less time (`deploy/`); this keeps one that is asked directly from holding a
connection for ever.
"""

from __future__ import annotations

import socket
from typing import Final

from flask import Flask, request

# Longer than gunicorn's `keepalive`, which must be the one to end an idle connection.
SILENCE_S: Final = 80.0


def connection() -> socket.socket | None:
    """The present caller's connection; None where no gunicorn serves it, as in a test."""
    found: socket.socket | None = request.environ.get("gunicorn.socket")
    return found


def register(app: Flask) -> None:
    """Bound each wait for a caller of `app`."""
    app.before_request(_bound)


def _bound() -> None:
    caller = connection()
    if caller is not None:
        caller.settimeout(SILENCE_S)
