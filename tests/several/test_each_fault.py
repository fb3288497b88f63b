"""Every fault of a host or a link by itself, and its end: is every session at rest as it should be?

What died comes back before the next one, so each meets a whole deployment.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator

import pytest

from tests.acceptance.session import wait_for
from tests.support.sentinels import Server
from worker_agent.lease import CUT_OFF_S

from .callers import Callers
from .deployment import Deployment, running, start_livekit
from .net import Host

pytestmark = [pytest.mark.timeout(280), pytest.mark.long]

SESSIONS = 16
EVERY_S = 0.4
SETTLED_WITHIN_S = 45.0
CUT_S = 8.0  # longer than a lease, a report and a connection to Redis are believed
FAILS_OVER_WITHIN_S = 25.0


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with running(tmp_path_factory.mktemp("hosts")) as made:
        yield made


@contextlib.asynccontextmanager
async def sessions(deployment: Deployment, *, rest_s: float = 2.0) -> AsyncIterator[Callers]:
    """People who go on asking while the block does harm; then the count, for `rest_s`."""
    async with contextlib.aclosing(Callers(deployment)) as callers:
        began = time.monotonic()
        flowing = asyncio.create_task(callers.stream(SESSIONS, every_s=EVERY_S))
        await asyncio.sleep(1.5)
        yield callers
        await flowing
        ended = await callers.settle(within_s=SETTLED_WITHIN_S, rest_s=rest_s)
        print(f"{dict(ended)}, settled after {time.monotonic() - began:.1f} s")
        assert not callers.refused
        assert len(callers.accepted) == SESSIONS
        assert not [each for each in callers.accepted if each.answered_in_s > 1]
        assert ended["joined"] >= SESSIONS * 0.75
        await callers.end_rooms()


def again(deployment: Deployment, host: str, *names: str) -> None:
    """The host is back, and does its part.

    Not in a thread of its own: with the thread that has started them, processes end.
    """
    registered = deployment.registrations(host)
    deployment.revive(host, *names)
    if "agent" in names:
        wait_for(
            f"{host} registered",
            lambda: deployment.registrations(host) > registered or None,
            within_s=30,
        )
    deployment.wait_until_ready()


@pytest.mark.parametrize(
    ("host", "names"),
    [("web-1", ["web"]), ("worker-1", ["dispatch", "verify", "beat"]), ("agent-1", ["agent"])],
)
async def test_a_host_dies_without_a_word(
    deployment: Deployment, host: str, names: list[str]
) -> None:
    async with sessions(deployment):
        await asyncio.to_thread(deployment[host].die)
    again(deployment, host, *names)


async def test_a_livekit_node_dies_without_a_word(deployment: Deployment) -> None:
    # LiveKit's list goes on naming who was at that node; an agent that is cut off says so late.
    async with sessions(deployment, rest_s=CUT_OFF_S + 5):
        await asyncio.to_thread(deployment["livekit-1"].die)
    deployment["livekit-1"].plug()
    deployment["livekit-1"].alive = True
    start_livekit(deployment, "livekit-1")
    deployment.wait_until_ready()


def data_host(deployment: Deployment, server: Server) -> Host:
    hosts = deployment.network.hosts.values()
    return next(each for each in hosts if each.address == server.host)


def fail_over(deployment: Deployment, harm: Callable[[Server], None]) -> Server:
    """Do that to the master; gives it back when another one has taken over."""
    old = deployment.redis.master()
    harm(old)
    wait_for(
        "a failover",
        lambda: deployment.redis.failed_over(old),
        within_s=FAILS_OVER_WITHIN_S,
    )
    return old


def restart_data_host(deployment: Deployment, old: Server) -> None:
    host = data_host(deployment, old)
    host.plug()
    host.alive = True
    for each in (*deployment.redis.servers, *deployment.redis.sentinels):
        if each.host == host.address:
            each.start()
    wait_for("all of Redis", lambda: deployment.redis.all_there() or None, within_s=40)


async def test_the_master_of_redis_dies_without_a_word(deployment: Deployment) -> None:
    async with sessions(deployment):
        old = await asyncio.to_thread(
            fail_over, deployment, lambda server: data_host(deployment, server).die()
        )
    restart_data_host(deployment, old)


async def test_the_master_dies_with_a_second_that_no_replica_has(deployment: Deployment) -> None:
    """What the promoted one has never heard of is written again by those who know it."""

    def harm(old: Server) -> None:
        with contextlib.ExitStack() as silence:
            for each in deployment.redis.servers:
                if each is not old:
                    silence.enter_context(each.frozen())
            time.sleep(1.0)
            data_host(deployment, old).die()

    async with sessions(deployment):
        old = await asyncio.to_thread(fail_over, deployment, harm)
    restart_data_host(deployment, old)


async def test_a_master_that_was_cut_off_comes_back_and_is_not_written_to(
    deployment: Deployment,
) -> None:
    """Its link is cut, another is promoted, the link heals: it takes itself for the master."""
    async with sessions(deployment):
        old = await asyncio.to_thread(
            fail_over, deployment, lambda server: data_host(deployment, server).unplug()
        )
        await asyncio.to_thread(data_host(deployment, old).plug)
    await asyncio.to_thread(
        wait_for, "all of Redis", lambda: deployment.redis.all_there() or None, within_s=40
    )


async def test_a_worker_host_is_cut_off_from_redis_for_a_while(deployment: Deployment) -> None:
    data = [data_host(deployment, server) for server in deployment.redis.servers]
    async with sessions(deployment):
        for each in data:
            each.deaf_to(deployment["worker-1"])
        await asyncio.sleep(CUT_S)
        for each in data:
            each.hears(deployment["worker-1"])


async def test_an_agent_host_is_cut_off_from_livekit_for_a_while(deployment: Deployment) -> None:
    async with sessions(deployment):
        deployment.network.deaf_to(deployment["agent-1"])
        for name in ("livekit-1", "livekit-2"):
            deployment[name].deaf_to(deployment["agent-1"])
        await asyncio.sleep(CUT_S)
        deployment.network.hears(deployment["agent-1"])
        for name in ("livekit-1", "livekit-2"):
            deployment[name].hears(deployment["agent-1"])


async def test_an_agent_host_is_unplugged_for_a_while(deployment: Deployment) -> None:
    """From LiveKit and from Redis: others take its sessions over, and it finds itself stale."""
    async with sessions(deployment):
        await asyncio.to_thread(deployment["agent-1"].unplug)
        await asyncio.sleep(CUT_S)
        await asyncio.to_thread(deployment["agent-1"].plug)


async def test_after_all_that_everything_is_in_order(deployment: Deployment) -> None:
    async with sessions(deployment):
        pass
