"""Bind the listening socket in the master, unless systemd or an older master hands one over.

Never in a worker: with gunicorn's own `reuse_port` each worker binds a socket of its own, and the
callers that the kernel has put into the queue of one that is stopping are reset. gunicorn ignores
systemd's socket then, too.

A master that was killed leaves workers behind that hold the port for some seconds; the next one
need not wait for them (SO_REUSEPORT). A lock keeps a second one out while the first lives.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import Any

from gunicorn import sock

from dispatcher.listening import cannot_listen

_NAMED = "USHER_WEB_HOST and USHER_WEB_PORT"
_MAX_NAME_BYTES = 107  # of a Unix socket
_locks: list[socket.socket] = []


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
        _lock(host, port)
        listener = socket.create_server(
            (host, port),
            family=family,
            backlog=server.cfg.backlog,
            reuse_port=True,
            # At `::` callers come by IPv4 as well, where the machine has it.
            dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
        )
    except OSError as error:
        raise SystemExit(cannot_listen(f"{host}:{port}", error, named=_NAMED)) from None
    with listener:  # gunicorn's own is made of it
        server.LISTENERS = sock.create_sockets(server.cfg, server.log, [os.dup(listener.fileno())])


def close_lock(server: Any, worker: Any) -> None:
    """gunicorn's `post_fork`: the lock is the master's, and ends with it."""
    while _locks:
        _locks.pop().close()


def _lock(host: str, port: int) -> None:
    """Hold the address's lock for as long as this process lives, on Linux.

    It is a name of the network namespace's, as the port itself is, and leaves no file behind.

    Raises:
        OSError: another master has it.
    """
    if sys.platform != "linux" or port == 0:
        return
    lock = socket.socket(socket.AF_UNIX)
    _locks.append(lock)
    lock.bind(f"\0usher-web-{os.getuid()}-{port}-{host}"[:_MAX_NAME_BYTES])
