"""Usher on hosts of its own, as docs/scaling.md has it: which processes run where.

| hosts | what |
| --- | --- |
| web-1, web-2 | `web` |
| worker-1, worker-2 | `dispatch`, `verify`; `beat` on the first (`dispatch` stands in for it) |
| agent-1, agent-2 | `agent` |
| data-1, data-2, data-3 | Redis and Sentinel |
| livekit-1, livekit-2 | LiveKit nodes |
| rooms | the Redis in which the LiveKit nodes find each other |

LiveKit has a Redis of its own, which nobody kills: its nodes do not follow a master that vanishes
without a word (docs/scaling.md), and what is tested here is Usher. The load balancer in front of
LiveKit runs in the test's own network.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from devstack import PROJECT_ROOT
from devstack.processes import end_with_parent
from devstack.servers import find_livekit_server, find_redis_server
from devstack.supervision import read_procfile
from tests.acceptance.session import wait_for
from tests.support.sentinels import Server, Watched

from .net import Host, Network, make_network

WEB_PORT = 8080
LIVEKIT_PORT = 7880
AGENT_NAME = "session-agent-rag"
_STARTS_WITHIN_S = 60.0


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """What runs, and how to reach it."""

    network: Network
    directory: Path
    redis: Watched
    livekit_key: str
    livekit_secret: str = field(repr=False)
    api_key: str = field(repr=False)

    def __getitem__(self, name: str) -> Host:
        return self.network.hosts[name]

    @property
    def livekit_url(self) -> str:
        return f"ws://{self.network.gateway}:{LIVEKIT_PORT}"

    def web_urls(self, *, alive: bool = False) -> list[str]:
        """In turn, as a load balancer has them; or only of those hosts that are alive."""
        hosts = [self[name] for name in ("web-1", "web-2")]
        return [f"http://{each.address}:{WEB_PORT}" for each in hosts if each.alive or not alive]

    def environ(self, host: Host) -> dict[str, str]:
        """Of Usher's processes on that host."""
        kept = ("HOME", "PATH", "LANG", "TMPDIR", "USHER_LIVEKIT_SERVER")
        return {name: os.environ[name] for name in kept if name in os.environ} | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(PROJECT_ROOT),
            "PYTHONUNBUFFERED": "1",
            "REDIS_URL": self.redis.url,
            "LIVEKIT_URL": self.livekit_url,
            "LIVEKIT_API_KEY": self.livekit_key,
            "LIVEKIT_API_SECRET": self.livekit_secret,
            "USHER_CLIENT_ID": "several",
            "USHER_API_KEY_SHA256": hashlib.sha256(self.api_key.encode()).hexdigest(),
            "USHER_WEB_HOST": host.address,
            "USHER_WEB_PORT": str(WEB_PORT),
            "USHER_WEB_WORKERS": "1",
            "USHER_AGENT_EXECUTOR": "thread",
            "USHER_AGENT_SLOTS": "60",
            "USHER_AGENT_DRAIN_S": "1",
            "USHER_LOG_FORMAT": "text",
            "USHER_RUN_DIR": str(self.directory),
        }

    def start(self, host_name: str, *names: str, environ: Mapping[str, str] | None = None) -> None:
        """Start processes of the Procfile on a host."""
        host, commands = self[host_name], read_procfile(PROJECT_ROOT / "Procfile")
        for name in names:
            host.start(
                name,
                ["sh", "-c", f"cd {PROJECT_ROOT} && {commands[name]}"],
                self.log_file(host_name, name),
                environ=self.environ(host) | dict(environ or {}),
            )

    def log_file(self, host_name: str, name: str) -> Path:
        return self.directory / f"{host_name}.{name}.log"

    def log(self, host_name: str, name: str) -> str:
        return self.log_file(host_name, name).read_text(errors="replace")

    def registrations(self, host_name: str) -> int:
        """How often the agent server of that host has registered itself at LiveKit."""
        path = self.log_file(host_name, "agent")
        return path.read_text(errors="replace").count("registered worker") if path.exists() else 0

    def wait_until_ready(self) -> None:
        """Return when each host does its part; the reason that it does not in the error."""
        missing: object = None

        def look() -> bool | None:
            nonlocal missing
            for host in self.network.hosts.values():
                assert not host.ended(), f"{host.name}: {host.ended()} ended, see its log"
            try:
                answers = [httpx.get(f"{url}/readyz", timeout=2) for url in self.web_urls()]
            except httpx.HTTPError as error:
                missing = error
                return None
            missing = [answer.json() for answer in answers]
            well = all(each.status_code == 200 and not each.json()["not_ready"] for each in answers)
            here = all(self.registrations(name) for name in ("agent-1", "agent-2"))
            return True if well and here else None

        try:
            wait_for("the whole deployment", look, within_s=_STARTS_WITHIN_S)
        except AssertionError as error:
            raise AssertionError(f"{error}: {missing}") from None

    def revive(self, host_name: str, *names: str) -> None:
        """The host is back with its processes, which know nothing of before."""
        self[host_name].plug()
        self[host_name].alive = True
        self.start(host_name, *names)


def _livekit_config(deployment: Deployment, host: Host) -> str:
    hooks = [f"{url}/api/v1/webhooks/livekit" for url in deployment.web_urls()]
    return json.dumps(
        {
            "port": LIVEKIT_PORT,
            "bind_addresses": [host.address],
            "rtc": {
                "tcp_port": 7881,
                "port_range_start": 50000,
                "port_range_end": 52000,
                "node_ip": host.address,
                "interfaces": {"includes": ["eth0"]},
                "use_external_ip": False,
                "stun_servers": ["127.0.0.1:50000"],  # or clients would ask public ones
            },
            "redis": {"address": f"{deployment['rooms'].address}:6379"},
            "keys": {deployment.livekit_key: deployment.livekit_secret},
            "webhook": {"api_key": deployment.livekit_key, "urls": hooks},
            "logging": {"level": "info", "json": False},
        }
    )


def start_livekit(deployment: Deployment, host_name: str) -> None:
    host = deployment[host_name]
    config = deployment.directory / f"{host_name}.yaml"
    config.write_text(_livekit_config(deployment, host))
    command = ["nice", "-n", "10", str(find_livekit_server(os.environ)), "--config", str(config)]
    host.start("livekit", command, deployment.log_file(host_name, "livekit"))


def _redis_on(network: Network, directory: Path, *, data_hosts: int) -> Watched:
    def server(host: Host, name: str, port: int) -> Server:
        return Server(
            host=host.address,
            port=port,
            directory=directory / f"{host.name}.{name}",
            sentinel=name == "sentinel",
            spawn=lambda command, log: host.start(name, command, log),
        )

    hosts = [network.host(f"data-{n + 1}") for n in range(data_hosts)]
    return Watched(
        servers=[server(host, "redis", 6379) for host in hosts],
        sentinels=[server(host, "sentinel", 26379) for host in hosts],
    )


def _start_redis_of_livekit(host: Host, directory: Path) -> None:
    command = [str(find_redis_server(os.environ)), "--bind", host.address, "--save", ""]
    command += ["--protected-mode", "no", "--dir", str(directory)]
    host.start("redis", command, directory / "rooms.redis.log")


@contextlib.contextmanager
def _balancer(deployment: Deployment, names: tuple[str, ...]) -> Iterator[None]:
    backends = [f"{deployment[name].address}:{LIVEKIT_PORT}" for name in names]
    arguments = [deployment.network.gateway, str(LIVEKIT_PORT), *backends]
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.several.balancer", *arguments],
        cwd=PROJECT_ROOT,
        preexec_fn=end_with_parent,
    )
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Deployment]:
    """All of it, ready; at the end nothing is left."""
    with contextlib.closing(make_network()) as network:
        for name in ("web", "worker", "agent", "livekit"):
            for number in (1, 2):
                network.host(f"{name}-{number}")
        deployment = Deployment(
            network=network,
            directory=directory,
            redis=_redis_on(network, directory, data_hosts=3),
            livekit_key="several",
            livekit_secret=secrets.token_hex(32),
            api_key=secrets.token_hex(16),
        )
        deployment.redis.start(min_replicas=1)
        _start_redis_of_livekit(network.host("rooms"), directory)
        with _balancer(deployment, ("livekit-1", "livekit-2")):
            for number in (1, 2):
                start_livekit(deployment, f"livekit-{number}")
                deployment.start(f"web-{number}", "web")
                deployment.start(f"worker-{number}", "dispatch", "verify")
                deployment.start(f"agent-{number}", "agent")
            deployment.start("worker-1", "beat")
            deployment.wait_until_ready()
            yield deployment
