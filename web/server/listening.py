"""Say in one line why the web cannot listen where it is told to; gunicorn itself listens."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any, Final

from dispatcher import listening
from dispatcher.errors import ConfigurationError

_NAMED: Final = "USHER_WEB_HOST and USHER_WEB_PORT"


def address(host: str, port: str) -> str:
    """gunicorn's `bind` for a host's name, an IPv4 or IPv6 address, or a socket (`unix:<path>`)."""
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def check(server: Any) -> None:
    """gunicorn's `on_starting`: see that its addresses are free, unless it is handed its sockets.

    By itself gunicorn tries for five seconds, and says so in ten lines.

    Raises:
        SystemExit: another program listens there, or none may.
    """
    handed_over = os.environ.get("LISTEN_PID") == str(os.getpid()) or "GUNICORN_FD" in os.environ
    if handed_over:
        return
    for each in server.cfg.address:
        if isinstance(each, tuple):
            try:
                listening.check(*each, named=_NAMED)
            except ConfigurationError as error:
                raise SystemExit(str(error)) from None
        elif isinstance(each, str) and _is_something_else(Path(each)):
            raise SystemExit(f"Usher cannot start, it cannot listen at {each}: it is no socket")


def _is_something_else(path: Path) -> bool:
    """Whether a file is there that is no socket; a socket that was left behind is replaced."""
    try:
        return not stat.S_ISSOCK(path.stat().st_mode)
    except FileNotFoundError:
        return False
