"""Who holds the socket at which callers knock?

The master, or whoever has handed one over, and never a worker: with gunicorn's own `reuse_port`
each worker binds a socket of its own, and whoever the kernel has put into the queue of one that is
stopping is reset. gunicorn ignores systemd's socket then, too.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from gunicorn import sock


def address(host: str, port: str) -> str:
    """gunicorn's `bind` for a host's name, an IPv4 or IPv6 address, or a socket (`unix:<path>`)."""
    if host.startswith("unix:"):
        return host
    return f"[{host}]:{port}" if ":" in host and not host.startswith("[") else f"{host}:{port}"


def open_door(server: Any) -> None:
    """gunicorn's `on_starting`: bind the socket, unless systemd or an older master hands over one.

    Unix sockets, and several addresses, gunicorn binds by itself: the path of a socket that another
    master has left behind is taken over, and there is no port to share with its workers.

    Raises:
        SystemExit: nobody can listen there, or another program does; one line says so.
    """
    handed_over = os.environ.get("LISTEN_PID") == str(os.getpid()) or "GUNICORN_FD" in os.environ
    if handed_over:
        return
    addresses = server.cfg.address
    if len(addresses) != 1 or not isinstance(addresses[0], tuple):
        try:
            server.LISTENERS = sock.create_sockets(server.cfg, server.log)
        except (OSError, ValueError) as error:
            raise SystemExit(f"cannot listen at {addresses}: {error}") from None
        return
    host, port = addresses[0]
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        # A master that was killed leaves workers behind that hold the port for some seconds; the
        # next one need not wait for them (SO_REUSEPORT).
        listener = socket.create_server(
            (host, port),
            family=family,
            backlog=server.cfg.backlog,
            reuse_port=True,
            # At `::` callers come by IPv4 as well, where the machine has it.
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise SystemExit(f"cannot listen at {host}:{port}: {error.strerror}") from None
    with listener:  # gunicorn's own is made of it
        server.LISTENERS = sock.create_sockets(server.cfg, server.log, [os.dup(listener.fileno())])
