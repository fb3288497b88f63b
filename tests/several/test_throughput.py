"""Do two worker hosts dispatch 1.8 times what one does?

By processor time for a session, because the hosts of this test share the cores of one machine: two
hosts on cores of their own dispatch twice as much when a session costs them no more than it costs
one. It would cost more if they got in each other's way: took the same record twice, or waited. Each
host gets sessions at the same rate, so two get twice as many; the machine keeps air, as what
competing for its cores costs is no matter of Usher's; and what an idle host uses is taken off.

How fast a backlog is worked off is told, too. LiveKit only answers here, and an agent server
reports slots that are not there.
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

from devstack import PROJECT_ROOT
from dispatcher.domain.models import NewDispatch
from dispatcher.ledger import dispatches
from dispatcher.ledger.client import Ledger
from dispatcher.settings import CommonSettings
from tests.acceptance.session import wait_for
from tests.support.sentinels import Server, Watched

from .deployment import LIVEKIT_PORT, Deployment
from .net import make_network

pytestmark = [pytest.mark.timeout(280), pytest.mark.long]

SESSIONS = 1500
PER_HOST_S = 50  # sessions a second
IDLE_S = 4.0
GROWS_BY = 1.8
ROUNDS = 2
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


@dataclass(frozen=True, kw_only=True)
class Asked:
    """The two ends of what is measured: the ledger, and the LiveKit that answers."""

    store: Ledger
    fake: httpx.Client
    prefix: str

    def put(self, number: int) -> None:
        self.store.run(
            dispatches.create(_session(f"{self.prefix}-{number}"), due_in_s=60, detail={})
        )

    def count(self) -> int:
        return int(self.fake.get("/count", params={"prefix": self.prefix}).json())

    def until_all_have_come(self, sessions: int) -> None:
        """Each of them once."""
        wait_for("the last", lambda: self.count() >= sessions or None, within_s=120)
        order = self.fake.get("/order").json()
        assert len(set(order)) == len(order) == sessions


@contextlib.contextmanager
def asked(deployment: Deployment, *hosts: str) -> Iterator[Asked]:
    """Nothing of before is there; at the end nothing runs on those hosts."""
    store = Ledger(CommonSettings(REDIS_URL=deployment.redis.url, USHER_REDIS_TIMEOUT_S=2))
    with (
        httpx.Client(base_url=_fake(deployment), trust_env=False) as fake,
        contextlib.closing(store),
    ):
        wait_for("the LiveKit that answers", lambda: _answers(fake), within_s=20)
        fake.post("/forget")
        yield Asked(store=store, fake=fake, prefix=uuid.uuid4().hex)
    for host in hosts:
        deployment[host].end_processes()
    with deployment.redis.servers[0].client() as client:
        client.flushall()  # the agent server that is not there reports itself again


def _fake(deployment: Deployment) -> str:
    return f"http://{deployment['livekit-1'].address}:{LIVEKIT_PORT}"


def _start(deployment: Deployment, hosts: tuple[str, ...]) -> None:
    for host in hosts:
        livekit = {"LIVEKIT_URL": _fake(deployment).replace("http", "ws", 1)}
        deployment.start(host, "dispatch", environ=livekit)


def _starts(deployment: Deployment, host: str) -> int:
    """How often the worker of that host has become ready so far."""
    log = deployment.log_file(host, "dispatch")
    return log.read_text().count(" ready.") if log.exists() else 0


def drained(deployment: Deployment, *hosts: str) -> Drained:
    """Let a backlog pile up, then have the workers of those hosts work it off."""
    with asked(deployment, *hosts) as ends:
        for number in range(SESSIONS):
            ends.put(number)
        _start(deployment, hosts)
        wait_for("the first", lambda: ends.count() or None, within_s=40)
        began, before, cpu_s = time.monotonic(), ends.count(), _cpu_s(deployment, hosts)
        ends.until_all_have_come(SESSIONS)
        share = SESSIONS / (SESSIONS - before)
        return Drained(
            took_s=(time.monotonic() - began) * share,
            cpu_s=(_cpu_s(deployment, hosts) - cpu_s) * share,
        )


def at_a_rate(deployment: Deployment, *hosts: str) -> float:
    """Processor time (ms) of those hosts for a session, beside what they use when idle."""
    per_s = PER_HOST_S * len(hosts)
    sessions = SESSIONS // 2 * len(hosts)
    with asked(deployment, *hosts) as ends:
        starts = {host: _starts(deployment, host) for host in hosts}
        _start(deployment, hosts)
        wait_for(
            f"{hosts}",
            lambda: all(_starts(deployment, host) > starts[host] for host in hosts) or None,
            within_s=40,
        )
        ends.put(0)
        wait_for("the first", lambda: ends.count() or None, within_s=20)
        idle_s = _cpu_s(deployment, hosts)
        time.sleep(IDLE_S)  # a measured time, not a wait
        idle_s = _cpu_s(deployment, hosts) - idle_s
        began, cpu_s = time.monotonic(), _cpu_s(deployment, hosts)
        for number in range(1, sessions):
            time.sleep(max(0.0, began + number / per_s - time.monotonic()))
            ends.put(number)
        ends.until_all_have_come(sessions)
        took_s = time.monotonic() - began
        used_s = _cpu_s(deployment, hosts) - cpu_s - idle_s / IDLE_S * took_s
        return used_s / sessions * 1000


def _answers(asked: httpx.Client) -> bool | None:
    with contextlib.suppress(httpx.HTTPError):
        return asked.get("/").status_code == 200
    return None


def _cpu_s(deployment: Deployment, hosts: tuple[str, ...]) -> float:
    return sum(deployment[host].cpu_s("dispatch") for host in hosts)


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
        for hosts in (["worker-1"], ["worker-1", "worker-2"]):
            print(f"{len(hosts)} worker host(s), a backlog: {drained(deployment, *hosts)}")
        # In turn, and the least of each: whatever else the machine does only adds to them.
        rounds = [
            (at_a_rate(deployment, "worker-1"), at_a_rate(deployment, "worker-1", "worker-2"))
            for _ in range(ROUNDS)
        ]
    one, two = map(min, zip(*rounds, strict=True))
    grows_by = 2 * one / two
    print(
        f"{PER_HOST_S}/s for each host: a session costs one host {one:.2f} ms, two {two:.2f} ms: "
        f"two do {grows_by:.2f} x one ({rounds})"
    )
    assert grows_by >= GROWS_BY
