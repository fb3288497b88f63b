"""How do callers behave who mean to keep a server busy by doing nothing?

A process of its own, so that thousands of sockets and their handling are not the honest caller's:
`python -m tests.acceptance.slow_callers PORT COUNT SECONDS KIND`. It keeps COUNT connections open,
opens one again for each that is closed, and ends by itself, or when its standard input does. When
all have been opened it prints `ready`; at its end how many were closed meanwhile.
"""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import sys
import threading
import time
from collections.abc import Iterator
from itertools import cycle

HEAD = b"POST /api/v1/dispatches HTTP/1.1\r\nHost: slow\r\nX-Slow: " + b"a" * 10_000
# What each kind of them sends: at once, and then one byte a second.
KINDS: dict[str, tuple[bytes, bytes]] = {
    "silent": (b"", b""),
    "headers": (HEAD[:40], HEAD[40:]),
    "body": (
        b"POST /api/v1/dispatches HTTP/1.1\r\nHost: slow\r\nContent-Length: 10000\r\n\r\n",
        b" " * 10_000,
    ),
    # Asks for more than the buffers on the way hold (240 kB), never reads, and never hangs up.
    "deaf": (b"GET /docs HTTP/1.1\r\nHost: slow\r\n\r\n" * 8, b""),
    # Has had its answer, is told that the connection ends, and does not end it.
    "lingering": (b"GET /healthz HTTP/1.1\r\nHost: slow\r\nConnection: close\r\n\r\n", b""),
}
# Opened in one go: at the beginning, and of those that were closed meanwhile.
AT_ONCE, AGAIN = 100, 5
DRIP_S = 1.0
IP_BIND_ADDRESS_NO_PORT = 24  # Linux's; Python has no name for it


class SlowCallers:
    """So many connections that are never done."""

    def __init__(self, port: int, count: int, kind: str) -> None:
        self._address = ("127.0.0.1", port)
        self._count = count
        self._first, self._drips = KINDS[kind]
        self._reads = kind not in ("deaf", "lingering")
        self._open: dict[socket.socket, Iterator[int]] = {}
        self._selector = selectors.DefaultSelector()
        self.opened = self.closed = 0

    def open_some(self) -> None:
        """A few of those that are missing."""
        most = AT_ONCE if self.opened < self._count else AGAIN
        for _ in range(min(most, self._count - len(self._open))):
            connection = socket.socket()
            # From an address of its own, whose ports nobody else needs.
            connection.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            connection.bind((f"127.0.1.{self.opened % 200 + 1}", 0))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            try:
                connection.connect(self._address)
                connection.setblocking(False)
                connection.send(self._first)
            except OSError:
                connection.close()
                continue
            self._selector.register(connection, selectors.EVENT_READ)
            self._open[connection] = cycle(self._drips)
            self.opened += 1

    def drip(self) -> None:
        """One more byte of each that is waiting for the next one."""
        for connection, drips in list(self._open.items()):
            byte = next(drips, None)
            if byte is not None:
                with contextlib.suppress(OSError):
                    connection.send(bytes([byte]))

    def look(self) -> None:
        """Drop those that the server has closed."""
        if not self._reads:
            return
        for key, _ in self._selector.select(timeout=0.01):
            connection = key.fileobj
            assert isinstance(connection, socket.socket)
            data = b""
            with contextlib.suppress(OSError):
                data = connection.recv(65_536)
            if not data:
                self._selector.unregister(connection)
                del self._open[connection]
                connection.close()
                self.closed += 1


def main() -> None:
    port, count, seconds, kind = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    callers = SlowCallers(port, count, kind)
    until = time.monotonic() + seconds
    next_drip, ready = time.monotonic() + DRIP_S, False
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    while time.monotonic() < until and not over.is_set():
        callers.open_some()
        callers.look()
        if not ready and callers.opened >= count:
            ready = True
            print("ready", flush=True)
        if time.monotonic() >= next_drip:
            next_drip = time.monotonic() + DRIP_S
            callers.drip()
        time.sleep(0.005)
    print(f"opened {callers.opened}, closed by the server {callers.closed}", flush=True)


if __name__ == "__main__":
    main()
