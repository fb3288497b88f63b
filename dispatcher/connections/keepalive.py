"""TCP keepalive options, so that a process soon notices that the machine of its Redis has vanished.

A connection that only waits (BRPOP, a subscription) learns nothing when its other end vanishes
without FIN or RST. By default kombu looks after 25 s and redis-py's probes take 45 s, so workers
were deaf for 47 s (measured), longer than a session has. Instead the kernel probes these
connections: no code of Usher's runs, and an idle connection costs one packet every three seconds.
"""

from __future__ import annotations

import socket
from typing import Final

_IDLE_S: Final = 3
_EVERY_S: Final = 1
_PROBES: Final = 3
_VALUES: Final = {
    "TCP_KEEPIDLE": _IDLE_S,
    "TCP_KEEPINTVL": _EVERY_S,
    "TCP_KEEPCNT": _PROBES,
    # The same limit for data that is sent and not confirmed: the default resends for 15 minutes.
    "TCP_USER_TIMEOUT": (_IDLE_S + _EVERY_S * _PROBES) * 1000,
}

# `socket_keepalive_options` of redis-py and of kombu, as far as this system has them.
SOCKET_OPTIONS: Final[dict[int, int]] = {
    getattr(socket, name): value for name, value in _VALUES.items() if hasattr(socket, name)
}
