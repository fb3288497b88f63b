"""Fixtures with the real servers that tests run on: a Redis, a LiveKit server, a whole stack."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis

from devstack.servers import find_livekit_server, find_redis_server
from tests.browser.serving import PageServer, serve_pages
from tests.support.stacks import RunningStack, running_stack

STARTS_WITHIN_S = 60
# For a stack whose Redis no test stops or hangs: on a slow machine its Redis must not seem away.
PATIENT = {"USHER_REDIS_TIMEOUT_S": "5"}


@dataclass(frozen=True, kw_only=True)
class LiveKitServer:
    """A LiveKit server on loopback and the key pair that it accepts."""

    url: str
    api_key: str
    api_secret: str


def free_port() -> int:
    """Return a TCP port that no process listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def process(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server process for as long as the block lasts."""
    with log.open("wb") as output:
        started = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            yield started
        finally:
            started.kill()
            started.wait()


def wait_until_answers(url: str, *, within_s: float = STARTS_WITHIN_S) -> None:
    """Return when `url` gives any HTTP answer; fail after a bounded time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            httpx.get(url, timeout=1, trust_env=False)
            return
        except httpx.HTTPError:
            time.sleep(0.05)
    pytest.fail(f"{url} does not answer within {within_s} s")


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of the test session's own; the test that uses it empties it first."""
    directory = tmp_path_factory.mktemp("redis")
    port = free_port()
    arguments = ["--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(directory)]
    with process(str(find_redis_server(os.environ)), *arguments, log=directory / "redis.log"):
        url = f"redis://127.0.0.1:{port}/0"
        with redis.Redis.from_url(url) as client:
            deadline = time.monotonic() + STARTS_WITHIN_S
            while time.monotonic() < deadline:
                try:
                    client.ping()
                    break
                except redis.ConnectionError:
                    time.sleep(0.02)
        yield url


@pytest.fixture(scope="session")
def livekit_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveKitServer]:
    """A LiveKit server of the test session's own, on loopback only."""
    directory = tmp_path_factory.mktemp("livekit")
    port, key, secret = free_port(), "test-key", secrets.token_hex(32)
    config = directory / "livekit.yaml"
    config.write_text(
        f"""
port: {port}
bind_addresses: ["127.0.0.1"]
rtc:
  tcp_port: {free_port()}
  port_range_start: 40000
  port_range_end: 42000
  node_ip: 127.0.0.1
  interfaces: {{includes: [lo]}}
  enable_loopback_candidate: true
  use_external_ip: false
  stun_servers: ["127.0.0.1:{free_port()}"]
keys: {{{key}: {secret}}}
"""
    )
    binary = str(find_livekit_server(os.environ))
    with process(binary, "--config", str(config), log=directory / "livekit.log"):
        wait_until_answers(f"http://127.0.0.1:{port}")
        yield LiveKitServer(url=f"ws://127.0.0.1:{port}", api_key=key, api_secret=secret)


@pytest.fixture(scope="session")
def page_server() -> Iterator[PageServer]:
    """A page of the stack's client, served before the stack starts, which must know its origin."""
    with serve_pages() as server:
        yield server


@pytest.fixture(scope="session")
def stack(
    tmp_path_factory: pytest.TempPathFactory, page_server: PageServer
) -> Iterator[RunningStack]:
    """The whole of Usher, as `make up` starts it, with one agent name that no server serves."""
    environ = {
        **PATIENT,
        "USHER_AGENT_NAMES": "session-agent-rag,agent-that-is-not-there",
        "USHER_ORIGINS": page_server.origin,
    }
    with running_stack(tmp_path_factory.mktemp("stack"), environ=environ) as running:
        yield running
