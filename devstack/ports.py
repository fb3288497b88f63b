"""The ports on which the stack listens."""

import random
import socket
from collections.abc import Mapping
from contextlib import ExitStack, closing
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


@dataclass(frozen=True, kw_only=True)
class _Setting:
    """A TCP port: the field of `Ports` it fills, its variable and its default."""

    field: str
    variable: str
    default: int


_TCP_SETTINGS = (
    _Setting(field="web", variable="USHER_WEB_PORT", default=8080),
    _Setting(field="redis", variable="USHER_REDIS_PORT", default=6390),
    _Setting(field="livekit", variable="USHER_LIVEKIT_PORT", default=7890),
    _Setting(field="livekit_tcp", variable="USHER_LIVEKIT_TCP_PORT", default=7891),
    _Setting(field="flower", variable="USHER_FLOWER_PORT", default=5566),
    _Setting(field="agent", variable="USHER_AGENT_PORT", default=8091),
)
_UDP_START = _Setting(
    field="livekit_udp_start", variable="USHER_LIVEKIT_UDP_PORT_START", default=52_000
)
_UDP_END = _Setting(field="livekit_udp_end", variable="USHER_LIVEKIT_UDP_PORT_END", default=54_000)

PORT_VARIABLES = tuple(s.variable for s in (*_TCP_SETTINGS, _UDP_START, _UDP_END))


def choose_ports(environ: Mapping[str, str], *, move_busy_defaults: bool = False) -> Ports:
    """Choose the ports that `environ` sets; 0 stands for any free one.

    With `move_busy_defaults`, a free port replaces a default one that is in use.

    Raises:
        StackError: a port is in use, or a value is not a port.
    """
    chosen: dict[str, int] = {}
    with ExitStack() as held:
        for setting in _TCP_SETTINGS:
            wanted = _wanted_port(setting, environ)
            if wanted and wanted in chosen.values():
                [other] = [s for s in _TCP_SETTINGS if chosen.get(s.field) == wanted]
                raise StackError(
                    f"{setting.variable} and {other.variable} are both {wanted}: "
                    "set one of them to another port (0 takes any free one)"
                )
            if wanted and (listener := _listen(wanted)):
                held.enter_context(closing(listener))
            elif wanted and not (move_busy_defaults and setting.variable not in environ):
                raise StackError(
                    f"port {wanted} is in use: stop what uses it, "
                    f"or set {setting.variable} to another port (0 takes any free one)"
                )
            else:
                listener = _listen_on_free_port()
                held.enter_context(closing(listener))
            chosen[setting.field] = listener.getsockname()[1]
    udp_start, udp_end = _choose_udp_range(environ)
    return Ports(**chosen, livekit_udp_start=udp_start, livekit_udp_end=udp_end)


def _choose_udp_range(environ: Mapping[str, str]) -> tuple[int, int]:
    """Choose the first and last UDP port for LiveKit, which itself skips those in use."""
    start, end = _wanted_port(_UDP_START, environ), _wanted_port(_UDP_END, environ)
    if start == 0 or end == 0:
        start = random.choice(_FREE_UDP_RANGES)  # nosec B311  # no secret
        return start, start + _FREE_UDP_RANGES.step - 1
    if start > end:
        raise StackError(
            f"{_UDP_START.variable}={start} lies above {_UDP_END.variable}={end}: set both"
        )
    return start, end


def _wanted_port(setting: _Setting, environ: Mapping[str, str]) -> int:
    text = environ.get(setting.variable, str(setting.default))
    if not text.isdecimal() or int(text) > 65_535:
        raise StackError(f"{setting.variable}={text} is no port: set a number from 0 to 65535")
    return int(text)


def _listen(port: int) -> socket.socket | None:
    """Return a socket that listens on the port, or None where it is in use."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    # As the servers do, so that connections left by an earlier run do not count as use.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((LOOPBACK, port))
        listener.listen()
    except OSError:
        listener.close()
        return None
    return listener


def _listen_on_free_port() -> socket.socket:
    for port in random.sample(_FREE_TCP_PORTS, k=100):  # nosec B311  # no secret
        if listener := _listen(port):
            return listener
    raise StackError("no free port found: set the port variables yourself")
