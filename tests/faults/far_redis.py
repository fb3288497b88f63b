"""A Redis on a machine of its own, which can vanish without a word.

A network namespace is that machine, behind a bridge. When it goes, its connections go with it, and
no FIN or RST tells the other side: what is left there is half open. Needs root on Linux.
"""

from __future__ import annotations

import os
import subprocess
import time
import uuid
from pathlib import Path

import redis

from devstack.servers import find_redis_server

_MAC = "02:00:00:00:75:01"  # the same for every machine of that address: nobody must relearn it


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


class FarRedis:
    """Redis behind a bridge; keeps nothing on disk.

    Raises (from the constructor): `subprocess.CalledProcessError` or `FileNotFoundError` where
    this process may not make networks.
    """

    def __init__(self, directory: Path) -> None:
        name = uuid.uuid4().hex[:6]
        # 198.18.0.0/15 is kept for tests of networks (RFC 2544), and so is in nobody's way.
        net = f"198.18.{int(name[:2], 16)}"
        self.host = f"{net}.2"
        self.url = f"redis://{self.host}:6379/0"
        self._namespace, self._bridge, self._link = f"usher-{name}", f"usb-{name}", f"usl-{name}"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        _ip("link", "add", self._bridge, "type", "bridge")
        try:
            _ip("addr", "add", f"{net}.1/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            self.appear()
        except BaseException:
            self.close()
            raise

    def appear(self) -> None:
        """A machine with a Redis, empty, at the same address as the one before it."""
        inside = ("-n", self._namespace)
        _ip("netns", "add", self._namespace)
        _ip(
            "link",
            "add",
            self._link,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            self._namespace,
        )
        _ip("link", "set", self._link, "master", self._bridge, "up")
        _ip(*inside, "link", "set", "eth0", "address", _MAC)
        _ip(*inside, "addr", "add", f"{self.host}/24", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        server = [str(find_redis_server(os.environ)), "--bind", self.host, "--save", ""]
        server += ["--protected-mode", "no", "--dir", str(self._directory)]
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", self._namespace, *server], stdout=subprocess.DEVNULL
        )
        until = time.monotonic() + 10
        with redis.Redis.from_url(self.url, socket_timeout=1, socket_connect_timeout=1) as client:
            while True:
                try:
                    client.ping()
                    return
                except redis.RedisError:
                    assert time.monotonic() < until, "redis-server did not start"
                    time.sleep(0.05)

    def vanish(self) -> None:
        """The machine is gone, from one moment to the next."""
        _ip("link", "del", self._link)  # before the process: nothing of its end gets out
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
        _ip("netns", "del", self._namespace)

    def close(self) -> None:
        """Leave nothing behind."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        for command in (("netns", "del", self._namespace), ("link", "del", self._bridge)):
            subprocess.run(["ip", *command], check=False, capture_output=True)
