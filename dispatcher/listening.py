"""Check before a server starts that it can bind its address."""

from __future__ import annotations

import socket

from dispatcher.errors import ConfigurationError


def check(host: str, port: int, *, named: str) -> None:
    """Check that a server can listen there; `named` are the settings of the address.

    Raises:
        ConfigurationError: it cannot listen; the message says why and what to do.
    """
    try:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            with socket.socket(family, kind, protocol) as probe:
                # As servers do, so that connections in TIME_WAIT do not count.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                probe.bind(address)
    except OSError as error:
        raise ConfigurationError(cannot_listen(f"{host}:{port}", error, named=named)) from None


def cannot_listen(address: str, error: OSError, *, named: str) -> str:
    """Return the error message for a server that cannot listen at `address`."""
    return (
        f"Usher cannot start, it cannot listen at {address}: {error.strerror}; stop what listens "
        f"there, or set {named} to another address"
    )
