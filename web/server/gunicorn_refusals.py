"""A problem as the answer to a request that gunicorn cannot parse.

gunicorn's own answer, before the application sees the request, is a page that repeats what was
sent.
"""

from __future__ import annotations

import socket
from http import HTTPStatus

from gunicorn import util

from web.contract.headers import SECURITY_HEADERS
from web.contract.problems import MEDIA_TYPE, problem_body


def write_error(caller: socket.socket, status: int, reason: str, _: str) -> None:
    """Answer, in place of `gunicorn.util.write_error`."""
    body = problem_body(status, reason, HTTPStatus(status).description or reason)
    headers = SECURITY_HEADERS | {
        "Content-Type": MEDIA_TYPE,
        "Content-Length": str(len(body)),
        "Connection": "close",
    }
    lines = (f"{name}: {value}\r\n" for name, value in headers.items())
    head = f"HTTP/1.1 {status} {reason}\r\n{''.join(lines)}\r\n"
    util.write_nonblock(caller, head.encode("latin-1") + body)
