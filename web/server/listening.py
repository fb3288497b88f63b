"""gunicorn's `bind` address, and a check before the start that gunicorn can listen there."""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path
from typing import Any, Final

from dispatcher import start_up
from dispatcher.errors import ConfigurationError

_NAMED: Final = "USHER_WEB_HOST and USHER_WEB_PORT"
# A worker whose master was killed listens until it notices, for up to a second.
_GIVES_WAY_S: Final = 3.0
_LOOK_EVERY_S: Final = 0.1


def address(host: str, port: str) -> str:
    """Return `bind` for a host name, an IPv4 or IPv6 address, or a socket (`unix:<path>`)."""
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def check(server: Any) -> None:
    """Check that gunicorn's addresses are free, unless it inherits its sockets (`on_starting`).

    gunicorn itself retries for five seconds, and logs ten lines.

    Raises:
        SystemExit: another program listens there, or none is allowed to.
    """
    if os.environ.get("LISTEN_PID") == str(os.getpid()) or "GUNICORN_FD" in os.environ:
        return
    for each in server.cfg.address:
        if isinstance(each, tuple):
            _wait_until_free(*each)
        elif isinstance(each, str) and _is_something_else(Path(each)):
            raise SystemExit(f"Usher cannot start, it cannot listen at {each}: it is no socket")


def _wait_until_free(host: str, port: int) -> None:
    until = time.monotonic() + _GIVES_WAY_S
    while True:
        try:
            return start_up.check_address(host, port, named=_NAMED)
        except ConfigurationError as error:
            if time.monotonic() > until:
                raise SystemExit(str(error)) from None
        time.sleep(_LOOK_EVERY_S)


def _is_something_else(path: Path) -> bool:
    """Return whether a file other than a socket is there; gunicorn replaces a leftover socket."""
    try:
        return not stat.S_ISSOCK(path.stat().st_mode)
    except FileNotFoundError:
        return False
