"""Time-outs for slow callers, and a limit on request bodies that the answer does not need.

gunicorn bounds a request's head alone (`keepalive`). This is for a web process without a proxy in
front, which gives a caller much less time (`deploy/`).
"""

from __future__ import annotations

import contextlib
import socket
from functools import partial
from typing import Any, Final

from flask import Blueprint, Response, g, request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import RequestEntityTooLarge

blueprint = Blueprint("slow_callers", __name__)

# Longer than gunicorn's `keepalive`, which must be the one to end an idle connection.
SILENCE_S: Final = 80.0
# Of a body that the answer did not need: read, so that the caller gets to the answer.
_MOST_UNREAD_BYTES: Final = 20_000_000
_PIECE_BYTES: Final = 65_536


def connection() -> socket.socket | None:
    """Return the present caller's connection; None without gunicorn, as in a test."""
    found: socket.socket | None = request.environ.get("gunicorn.socket")
    return found


def whole_body() -> bytes:
    """Return the present request's body; one that is larger than allowed is a 413."""
    body = request.get_data()
    # werkzeug 3.1 reads a chunked body up to the limit, and does not say that there is more.
    if request.content_length is None and len(body) >= (request.max_content_length or 0):
        raise RequestEntityTooLarge
    g.usher_body_read = True
    return body


@blueprint.before_app_request
def _bound_waits() -> None:
    caller = connection()
    if caller is not None:
        caller.settimeout(SILENCE_S)


@blueprint.after_app_request
def _read_the_rest_later(response: Response) -> Response:
    """Read the rest of the body after the answer, in larger pieces than gunicorn would.

    Why: `docs/decisions/0129-web-on-a-stock-server.md`.
    """
    caller = connection()
    if caller is not None and "usher_body_read" not in g:
        response.call_on_close(partial(_read_the_rest, request.environ["wsgi.input"], caller))
    return response


def _read_the_rest(body: Any, caller: socket.socket) -> None:
    left = _MOST_UNREAD_BYTES
    with contextlib.suppress(OSError, ParseException):  # gunicorn meets the same error
        while piece := body.read(_PIECE_BYTES):
            left -= len(piece)
            if left < 0:
                caller.shutdown(socket.SHUT_RDWR)
                return
