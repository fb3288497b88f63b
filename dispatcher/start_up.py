"""What every server process does when it starts: check its address, freeze its objects."""

from __future__ import annotations

import gc
import socket

from dispatcher.errors import ConfigurationError


def check_address(host: str, port: int, *, named: str) -> None:
    """Raise a `ConfigurationError` that names the settings `named` if none can listen there."""
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
        raise ConfigurationError(
            f"Usher cannot start, it cannot listen at {host}:{port}: {error.strerror}; stop what "
            f"listens there, or set {named} to another address"
        ) from None


def freeze() -> None:
    """Exclude all present objects (modules, settings, connections) from garbage collection.

    Call it once, when ready. Otherwise a collection of the oldest generation goes through all of
    them, and stops the process meanwhile (docs/decisions/0028-gc-freeze.md).
    """
    gc.collect()
    gc.freeze()
