"""Head and body of an answer in one packet: gunicorn writes them one after the other.

The kernel takes some 40 us of the processor for a packet, a twentieth of a whole request.
"""

from __future__ import annotations

import socket
from functools import partial
from typing import Final

from flask import Blueprint, Response

from web.server.slow_callers import connection

blueprint = Blueprint("one_packet", __name__)

# Linux holds packets back that are not full while it is set. Other systems have it not, or under
# another name, and send two.
_CORK: Final[int | None] = getattr(socket, "TCP_CORK", None)
_BY_TCP: Final = frozenset({socket.AF_INET, socket.AF_INET6})


@blueprint.after_app_request
def _hold_back(response: Response) -> Response:
    """Hold the answer's packets back until it is written; not an event stream's."""
    caller = connection()
    if _CORK is None or caller is None or caller.family not in _BY_TCP or response.is_streamed:
        return response
    caller.setsockopt(socket.IPPROTO_TCP, _CORK, 1)
    response.call_on_close(partial(caller.setsockopt, socket.IPPROTO_TCP, _CORK, 0))
    return response
