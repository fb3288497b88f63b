"""Half of everything dies, host after host, while sessions flow: is anything lost, or doubled?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from pathlib import Path

import pytest

from tests.acceptance.session import wait_for
from tests.support.sentinels import PASSWORD

from .callers import Callers
from .deployment import running

pytestmark = [pytest.mark.timeout(180), pytest.mark.deployment]

SESSIONS = 36
EVERY_S = 0.5
SETTLED_WITHIN_S = 40.0  # a deadline, and a replacement after it
# The other half is there: an explicit failure must be the exception.
JOINED_AT_LEAST = 0.9


async def test_half_of_all_hosts_die_while_sessions_flow_and_none_is_lost(tmp_path: Path) -> None:
    with running(tmp_path) as deployment:
        async with contextlib.aclosing(Callers(deployment)) as callers:
            flowing = asyncio.create_task(callers.stream(SESSIONS, every_s=EVERY_S))
            began = time.monotonic()
            await asyncio.sleep(2)
            for name in ("web-1", "worker-1", "agent-1"):
                await asyncio.to_thread(deployment[name].die)
                await asyncio.sleep(2.5)
            old = deployment.redis.master()
            host = next(h for h in deployment.network.hosts.values() if h.address == old.host)
            fails = time.monotonic()
            await asyncio.to_thread(host.die)
            await asyncio.to_thread(
                wait_for,
                "a failover",
                lambda: deployment.redis.failed_over(old),
                within_s=25,
            )
            print(f"failed over after {time.monotonic() - fails:.1f} s")
            await flowing
            print(f"asked for {len(callers.accepted)} after {time.monotonic() - began:.1f} s")
            ended = await callers.settle(within_s=SETTLED_WITHIN_S)
            print(f"settled after {time.monotonic() - began:.1f} s: {dict(ended)}")
            assert not callers.refused
            assert len(callers.accepted) == SESSIONS
            assert ended["joined"] >= SESSIONS * JOINED_AT_LEAST
            assert not [each for each in callers.accepted if each.answered_in_s > 1]
        told = [path for path in tmp_path.glob("*.log") if PASSWORD in path.read_text("latin-1")]
        assert not told
