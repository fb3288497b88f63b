"""The ports on which the stack listens."""

import random
import socket
from collections.abc import Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass

from devstack import StackError

LOOPBACK = "127.0.0.1"

# Free ports are taken from below the range that Linux and macOS hand out for outgoing
# connections. From inside it, a client that keeps retrying a server that is down can be given
# the server's own port, and then the server cannot come back.
_FREE_TCP_PORTS = range(20_000, 30_000)
_FREE_UDP_RANGES = range(30_000, 32_500, 250)


@dataclass(frozen=True, kw_only=True)
class Ports:
    web: int
    redis: int
    livekit: int
    livekit_tcp: int
    livekit_udp_start: int
    livekit_udp_end: int
    flower: int
    agent: int


# The field of `Ports`, its variable and its default.
_TCP_PORTS = {
    "web": ("USHER_WEB_PORT", 8080),
    "redis": ("USHER_REDIS_PORT", 6390),
    "livekit": ("USHER_LIVEKIT_PORT", 7890),
    "livekit_tcp": ("USHER_LIVEKIT_TCP_PORT", 7891),
    "flower": ("USHER_FLOWER_PORT", 5566),
    "agent": ("USHER_AGENT_PORT", 8091),
}
_UDP_START = "USHER_LIVEKIT_UDP_PORT_START"
_UDP_END = "USHER_LIVEKIT_UDP_PORT_END"

PORT_VARIABLES = (*(variable for variable, _ in _TCP_PORTS.values()), _UDP_START, _UDP_END)


def choose_ports(environ: Mapping[str, str], *, move_busy_defaults: bool = False) -> Ports:
    """Choose the ports that `environ` sets; 0 stands for any free one.

    With `move_busy_defaults`, a free port replaces a default one that is in use.

    Raises:
        StackError: a port is in use, or a value is not a port.
    """
    chosen: dict[str, int] = {}
    taken: dict[int, str] = {}  # by which variable
    with ExitStack() as held:
        for name, (variable, default) in _TCP_PORTS.items():
            wanted = _wanted_port(variable, default, environ)
            if wanted in taken:
                raise StackError(
                    f"{variable} and {taken[wanted]} are both {wanted}: "
                    "set one of them to another port (0 takes any free one)"
                )
            listener = _listen(wanted) if wanted else None
            if wanted and not listener and not (move_busy_defaults and variable not in environ):
                raise StackError(
                    f"port {wanted} is in use: stop what uses it, "
                    f"or set {variable} to another port (0 takes any free one)"
                )
            listener = listener or _listen_on_free_port()
            held.enter_context(closing(listener))
            chosen[name] = listener.getsockname()[1]
            taken[chosen[name]] = variable
    udp_start, udp_end = _choose_udp_range(environ)
    return Ports(**chosen, livekit_udp_start=udp_start, livekit_udp_end=udp_end)


def _choose_udp_range(environ: Mapping[str, str]) -> tuple[int, int]:
    """Choose the first and last UDP port for LiveKit, which itself skips those in use."""
    start = _wanted_port(_UDP_START, 52_000, environ)
    end = _wanted_port(_UDP_END, 54_000, environ)
    if start == 0 or end == 0:
        start = random.choice(_FREE_UDP_RANGES)  # nosec B311  # no secret
        return start, start + _FREE_UDP_RANGES.step - 1
    if start > end:
        raise StackError(f"{_UDP_START}={start} lies above {_UDP_END}={end}: set both")
    return start, end


def _wanted_port(variable: str, default: int, environ: Mapping[str, str]) -> int:
    text = environ.get(variable, str(default))
    if not text.isdecimal() or int(text) > 65_535:
        raise StackError(f"{variable}={text} is no port: set a number from 0 to 65535")
    return int(text)


def _listen(port: int) -> socket.socket | None:
    """Return a socket that listens on the port, or None where it is in use."""
    with suppress(OSError):
        return socket.create_server((LOOPBACK, port))
    return None


def _listen_on_free_port() -> socket.socket:
    for port in random.sample(_FREE_TCP_PORTS, k=100):  # nosec B311  # no secret
        if listener := _listen(port):
            return listener
    raise StackError("no free port found: set the port variables yourself")
