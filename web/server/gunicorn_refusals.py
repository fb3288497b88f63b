"""Answer requests that gunicorn cannot parse with a problem, as every other error.

gunicorn refuses them before the application sees them, with a page of its own that repeats what
was sent.
"""

from __future__ import annotations

import socket
from http import HTTPStatus

from gunicorn import util

from web.contract.headers import ALWAYS, NOTHING
from web.contract.problems import MEDIA_TYPE, problem_body


def install() -> None:
    """Make gunicorn's own error answers problems (`gunicorn.util.write_error`, gunicorn 27)."""
    util.write_error = _write


def _write(caller: socket.socket, status: int, reason: str, _: str) -> None:
    detail = HTTPStatus(status).description or reason
    body = problem_body(status, reason, detail)
    headers = ALWAYS | {
        "Content-Security-Policy": NOTHING,
        "Cache-Control": "no-store",
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = [
        f"HTTP/1.1 {status} {reason}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    util.write_nonblock(caller, "\r\n".join([*lines, "", ""]).encode("latin-1") + body)
