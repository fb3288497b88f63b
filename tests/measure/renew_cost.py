"""What does a live session cost Redis? `python -m tests.measure.renew_cost`.

Each agent renews its lease every 0.8 s for as long as its session lives, so live sessions, not new
ones, are most of what a large deployment's Redis does. Counted: the processor time of a Redis
of its own (`INFO cpu`), for renewals by connections that each wait for their answers.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
import uuid
from pathlib import Path
from typing import Final

import redis

from dispatcher.domain.models import DispatchRef, NewDispatch
from dispatcher.ledger import dispatches, leases
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.settings import CommonSettings
from tests.support.ownredis import OwnRedis

_SESSIONS: Final = 500
_EACH: Final = 60


def _cpu_s(client: redis.Redis) -> float:
    used = client.info("cpu")
    return float(used["used_cpu_sys"]) + float(used["used_cpu_user"])


async def _live(store: AsyncLedger) -> DispatchRef:
    """A session whose agent is there, as far as the ledger knows."""
    new = NewDispatch(
        dispatch_id=f"dsp_{uuid.uuid4().hex}",
        client_id="acme",
        room_name=f"room-{uuid.uuid4().hex}",
        agent_name="session-agent-rag",
        container="",
        agent_metadata="",
        deadline_ms=20_000,
    )
    await store.run(dispatches.create(new, due_in_s=60, detail={}))
    return DispatchRef(
        dispatch_id=new.dispatch_id,
        client_id=new.client_id,
        room_name=new.room_name,
        agent_name=new.agent_name,
        generation=1,
    )


async def _renew(store: AsyncLedger, ref: DispatchRef) -> None:
    step = leases.renew(ref, job_id="", people=1, abandon_after_s=300, deserted_after_s=30)
    for _ in range(_EACH):
        assert await store.run(step) is leases.Renewal.OK


async def _measure(url: str) -> None:
    settings = CommonSettings(REDIS_URL=url, USHER_REDIS_WORKER_TIMEOUT_S=10)
    with redis.Redis.from_url(url) as client:
        async with AsyncLedger(settings) as store:
            refs = [await _live(store) for _ in range(_SESSIONS)]
            for ref in refs:
                client.hset(f"usher:dispatch:{ref.dispatch_id}", "state", "joined")
            before, began = _cpu_s(client), time.monotonic()
            await asyncio.gather(*(_renew(store, ref) for ref in refs))
            count = _SESSIONS * _EACH
            each_us = (_cpu_s(client) - before) / count * 1e6
            took_s = time.monotonic() - began
    per_core = leases.RENEW_S * 1e6 / each_us
    print(f"{count} renewals in {took_s:.1f} s: {each_us:.1f} us of Redis's processor time each")
    print(f"one every {leases.RENEW_S} s: a whole core of Redis for {per_core:,.0f} live sessions")


def main() -> None:
    with tempfile.TemporaryDirectory() as directory:
        server = OwnRedis(Path(directory))
        server.start()
        try:
            asyncio.run(_measure(server.url))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
