"""How soon does a process notice that the machine of its Redis has vanished?

A connection on which one only waits (BRPOP, a subscription) is told nothing when its other end goes
without FIN or RST. By default kombu looks after 25 s and redis-py's probes take 45 s, so workers
were deaf for 47 s (measured), more than a session has. The kernel probes these connections instead:
nothing of ours runs, and an idle connection costs one packet every three seconds.
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
    # The same for what was sent and is not confirmed: by default it is sent again for 15 minutes.
    "TCP_USER_TIMEOUT": (_IDLE_S + _EVERY_S * _PROBES) * 1000,
}

# `socket_keepalive_options` of redis-py and of kombu, as far as this system has them.
SOCKET_OPTIONS: Final[dict[int, int]] = {
    getattr(socket, name): value for name, value in _VALUES.items() if hasattr(socket, name)
}
