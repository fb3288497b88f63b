"""Do two worker hosts dispatch 1.8 times what one does?

By processor time for a session, because the hosts of this test share the cores of one machine: two
hosts on cores of their own dispatch twice as much when a session costs them no more than it costs
one. It would cost more if they got in each other's way: took the same record twice, or waited.
LiveKit only answers here, and an agent server reports slots that are not there.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import redis

from devstack import PROJECT_ROOT
from dispatcher import ledger
from dispatcher.models import NewDispatch
from dispatcher.settings import CommonSettings
from dispatcher.store import Ledger
from tests.acceptance.session import wait_for
from tests.sentinels import Server, Watched

from .deployment import LIVEKIT_PORT, Deployment
from .net import make_network

pytestmark = [pytest.mark.timeout(280), pytest.mark.long]

SESSIONS = 1500
GROWS_BY = 1.8
AGENT_NAME = "bench-usher"  # of `bench.pretended`


@dataclass(frozen=True, kw_only=True)
class Drained:
    """How a backlog was worked off."""

    took_s: float
    cpu_s: float

    def __str__(self) -> str:
        each_ms = self.cpu_s / SESSIONS * 1000
        return f"{SESSIONS / self.took_s:.0f} dispatches/s, {each_ms:.2f} ms of worker CPU each"


@contextlib.contextmanager
def dispatching_only(directory: Path) -> Iterator[Deployment]:
    """One Redis and one LiveKit that answers, two worker hosts on which nothing runs yet."""
    with contextlib.closing(make_network()) as network:
        for name in ("web-1", "web-2", "worker-1", "worker-2", "agent-1", "livekit-1", "data-1"):
            network.host(name)
        data = network.hosts["data-1"]
        server = Server(
            host=data.address,
            port=6379,
            directory=directory / "redis",
            spawn=lambda command, log: data.start("redis", command, log),
        )
        sentinel = Server(
            host=data.address,
            port=26379,
            directory=directory / "sentinel",
            sentinel=True,
            spawn=lambda command, log: data.start("sentinel", command, log),
        )
        deployment = Deployment(
            network=network,
            directory=directory,
            redis=Watched(servers=[server], sentinels=[sentinel]),
            livekit_key="several",
            livekit_secret=uuid.uuid4().hex,
            api_key=uuid.uuid4().hex,
        )
        deployment.redis.start()
        fake = network.hosts["livekit-1"]
        python = ["sh", "-c", f'cd {PROJECT_ROOT} && exec "$0" "$@"', sys.executable, "-m"]
        fake.start(
            "livekit",
            [*python, "tests.several.answering", fake.address],
            directory / "livekit.log",
            environ={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
        )
        agent = network.hosts["agent-1"]
        agent.start(
            "agent",
            [*python, "bench.pretended"],
            directory / "agent.log",
            environ=deployment.environ(agent) | {"USHER_BENCH_RENEW": str(directory / "none")},
        )
        yield deployment


def drained(deployment: Deployment, *hosts: str) -> Drained:
    """Let a backlog pile up, then have the workers of those hosts work it off."""
    store = Ledger(CommonSettings(REDIS_URL=deployment.redis.url, USHER_REDIS_TIMEOUT_S=2))
    fake = f"http://{deployment['livekit-1'].address}:{LIVEKIT_PORT}"
    with httpx.Client(base_url=fake, trust_env=False) as asked, contextlib.closing(store):
        wait_for("the LiveKit that answers", lambda: _answers(asked), within_s=20)
        asked.post("/forget")
        prefix = uuid.uuid4().hex
        for number in range(SESSIONS):
            store.run(ledger.create(_session(f"{prefix}-{number}"), due_in_s=60, detail={}))
        for host in hosts:
            deployment.start(host, "dispatch", environ={"LIVEKIT_URL": f"ws{fake[4:]}"})

        def count() -> int:
            return int(asked.get("/count", params={"prefix": prefix}).json())

        wait_for("the first", lambda: count() or None, within_s=40)
        began = time.monotonic(), count(), _cpu_s(deployment, hosts)
        wait_for("the last", lambda: count() >= SESSIONS or None, within_s=120)
        took_s = time.monotonic() - began[0]
        cpu_s = _cpu_s(deployment, hosts) - began[2]
        rest = SESSIONS / (SESSIONS - began[1])
        assert len(set(asked.get("/order").json())) == len(asked.get("/order").json()) == SESSIONS
    for host in hosts:
        deployment[host].end_processes()
    with deployment.redis.servers[0].client() as client:
        _forget(client)
    return Drained(took_s=took_s * rest, cpu_s=cpu_s * rest)


def _answers(asked: httpx.Client) -> bool | None:
    with contextlib.suppress(httpx.HTTPError):
        return asked.get("/").status_code == 200
    return None


def _cpu_s(deployment: Deployment, hosts: tuple[str, ...]) -> float:
    return sum(deployment[host].cpu_s("dispatch") for host in hosts)


def _forget(client: redis.Redis) -> None:
    """All sessions; the agent server that is not there reports itself again."""
    client.flushall()


def _session(room: str) -> NewDispatch:
    return NewDispatch(
        dispatch_id=f"dsp_{uuid.uuid4().hex}",
        client_id="several",
        room_name=room,
        agent_name=AGENT_NAME,
        container="",
        agent_metadata="",
        deadline_ms=600_000,
    )


def test_two_worker_hosts_dispatch_what_two_can(tmp_path: Path) -> None:
    with dispatching_only(tmp_path) as deployment:
        drained(deployment, "worker-1")  # what is done for the first time is not measured
        one = drained(deployment, "worker-1")
        two = drained(deployment, "worker-1", "worker-2")
    grows_by = 2 * one.cpu_s / two.cpu_s
    print(f"one worker host: {one}; two: {two}; by processor time two do {grows_by:.2f} x one")
    assert grows_by >= GROWS_BY
