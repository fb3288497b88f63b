"""Redis servers, one of them the master, and the Sentinels that watch them."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from devstack.servers import find_redis_server

SERVICE = "usher"
PASSWORD = "of-redis"
# Below a second, healthy servers of a busy machine look dead.
DOWN_AFTER_MS = 1500
_STARTS_WITHIN_S = 30

# Starts a command: its words, and the file for its output.
Spawn = Callable[[Sequence[str], Path], "subprocess.Popen[bytes]"]


def spawn(command: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """Start the command on this machine."""
    with log.open("ab") as output:
        return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)


@dataclass(kw_only=True)
class Server:
    """A Redis or a Sentinel with a folder of its own, which survives a stop."""

    host: str
    port: int
    directory: Path
    spawn: Spawn = spawn
    sentinel: bool = False
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def write_config(self, lines: Sequence[str]) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        common = [f"bind {self.host}", f"port {self.port}", f'dir "{self.directory}"']
        (self.directory / "redis.conf").write_text("\n".join([*common, *lines]) + "\n")

    def start(self) -> None:
        command = [str(find_redis_server(os.environ)), str(self.directory / "redis.conf")]
        self.process = self.spawn(
            [*command, *(["--sentinel"] if self.sentinel else [])], self.directory / "log"
        )

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def client(self) -> redis.Redis:
        """Connect to this server directly; the caller closes the client."""
        return redis.Redis(
            host=self.host,
            port=self.port,
            password=None if self.sentinel else PASSWORD,
            socket_timeout=1,
            socket_connect_timeout=0.5,
            retry=Retry(NoBackoff(), 0),
            decode_responses=True,
        )


@dataclass(frozen=True, kw_only=True)
class Watched:
    """Redis servers (the first begins as the master) and as many Sentinels."""

    servers: Sequence[Server]
    sentinels: Sequence[Server]

    @property
    def url(self) -> str:
        hosts = ",".join(f"{each.host}:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://:{PASSWORD}@{hosts}/0?service={SERVICE}"

    def start(self, *, min_replicas: int = 0) -> None:
        """Start all; return when every Sentinel knows all the others and all replicas."""
        first = self.servers[0]
        for each in self.servers:
            lines = ["appendonly yes", "appendfsync everysec", 'save ""', "repl-diskless-sync yes"]
            lines += ["repl-diskless-sync-delay 0", "repl-ping-replica-period 1"]
            lines += [f"requirepass {PASSWORD}", f"masterauth {PASSWORD}"]
            lines += [f"min-replicas-to-write {min_replicas}", "min-replicas-max-lag 3"]
            if each is not first:
                lines.append(f"replicaof {first.host} {first.port}")
            each.write_config(lines)
            each.start()
        for each in self.sentinels:
            watched = f"sentinel monitor {SERVICE} {first.host} {first.port}"
            each.write_config(
                [
                    f"{watched} {len(self.sentinels) // 2 + 1}",
                    f"sentinel auth-pass {SERVICE} {PASSWORD}",
                    f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
                    f"sentinel failover-timeout {SERVICE} 2500",
                    f"sentinel parallel-syncs {SERVICE} {len(self.servers)}",
                ]
            )
            each.start()
        until = time.monotonic() + _STARTS_WITHIN_S
        while not self.all_there():
            assert time.monotonic() < until, "Redis and its Sentinels did not find each other"
            time.sleep(0.1)

    def all_there(self) -> bool:
        """Return true when every Sentinel sees all servers, and the master has all replicas."""
        try:
            for each in self.sentinels:
                with each.client() as client:
                    seen = client.sentinel_masters()[SERVICE]
                    replicas = client.sentinel_slaves(SERVICE)
                if seen["num-other-sentinels"] != len(self.sentinels) - 1:
                    return False
                if sum(not replica["is_sdown"] for replica in replicas) != len(self.servers) - 1:
                    return False
            with self.master().client() as client:
                online = sum(
                    each["state"] == "online"
                    for name, each in client.info("replication").items()
                    if name.startswith("slave") and isinstance(each, dict)
                )
            return online == len(self.servers) - 1
        except (redis.RedisError, KeyError):
            return False

    def master(self) -> Server:
        """Return the master, by most of the Sentinels that answer."""
        named: list[tuple[str, int]] = []
        for each in self.sentinels:
            with contextlib.suppress(redis.RedisError), each.client() as client:
                host, port = client.sentinel_get_master_addr_by_name(SERVICE)
                named.append((host, int(port)))
        if not named:
            raise redis.ConnectionError("no Sentinel answers")
        chosen = max(named, key=named.count)
        return next(each for each in self.servers if (each.host, each.port) == chosen)

    def failed_over(self, old: Server) -> Server | None:
        """Return the new master, once its own role is master."""
        with contextlib.suppress(redis.RedisError):
            new = self.master()
            if new is not old:
                with new.client() as client:
                    return new if client.info("replication")["role"] == "master" else None
        return None

    def kill(self) -> None:
        for each in (*self.sentinels, *self.servers):
            each.kill()
