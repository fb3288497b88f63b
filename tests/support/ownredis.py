"""A Redis server that one test can stop, freeze and start again, at the same address."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import redis

from devstack.servers import find_redis_server

_STARTS_WITHIN_S = 30


class OwnRedis:
    """A Redis that is empty after every start: no file on disk, and no script in its cache."""

    def __init__(self, directory: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *more: str) -> None:
        """Start it; `more` are arguments of redis-server."""
        arguments = ["--bind", "127.0.0.1", "--port", str(self.port), "--save", "", *more]
        self._process = subprocess.Popen(
            [str(find_redis_server(os.environ)), *arguments, "--dir", str(self._directory)],
            stdout=subprocess.DEVNULL,
        )
        until = time.monotonic() + _STARTS_WITHIN_S
        with redis.Redis.from_url(self.url, socket_timeout=1) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    assert time.monotonic() < until, "redis-server did not start"
                    time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Freeze it within the block: it keeps its port and connections, and answers nothing."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)
