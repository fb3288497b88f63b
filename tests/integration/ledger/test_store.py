"""What does a caller of the ledger meet when Redis hangs, goes away or comes back?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import dispatches, reports
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.client import AT_ONCE, Ledger
from dispatcher.settings import CommonSettings
from tests.support.ownredis import OwnRedis
from tests.support.values import eventually, new_dispatch

TIMEOUT_S = 1.0  # as in `own_common`
AIR_S = 0.9  # less than another time-out


@pytest.fixture
def own_store(own_common: CommonSettings) -> Iterator[Ledger]:
    store = Ledger(own_common)
    yield store
    store._redis.close()


@pytest.mark.parametrize("connected_before", [True, False])
async def test_a_hung_redis_is_given_up_within_the_timeout_and_then_at_once_for_a_while(
    connected_before: bool, own_store: Ledger, own_redis: OwnRedis
) -> None:
    if connected_before:
        own_store.run(reports.ping())

    with own_redis.frozen():
        started_s = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="REDIS_URL"):
            own_store.run(reports.ping())
        assert time.monotonic() - started_s < TIMEOUT_S + AIR_S
        refused_s = time.monotonic()
        with pytest.raises(LedgerUnavailable, match="a moment ago"):
            own_store.run(reports.ping())
        assert time.monotonic() - refused_s < TIMEOUT_S / 2

    def answers() -> bool:
        with contextlib.suppress(LedgerUnavailable):
            return own_store.run(reports.ping()) > 0
        return False

    assert await eventually(answers)


@pytest.mark.parametrize("connected_before", [True, False])
async def test_a_hung_redis_is_given_up_within_the_timeout_with_asyncio(
    connected_before: bool, own_common: CommonSettings, own_redis: OwnRedis
) -> None:
    async with AsyncLedger(own_common) as store:
        if connected_before:
            await store.run(reports.ping())

        with own_redis.frozen():
            started_s = time.monotonic()
            with pytest.raises(LedgerUnavailable, match="REDIS_URL"):
                await store.run(reports.ping())
            assert time.monotonic() - started_s < TIMEOUT_S + AIR_S

        await store.run(reports.ping())


def test_after_a_restart_of_redis_the_next_call_works(
    own_store: Ledger, own_redis: OwnRedis
) -> None:
    own_store.run(reports.ping())

    own_redis.stop()
    own_redis.start()

    assert own_store.run(reports.ping()) > 0
    assert own_store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={})).new


async def test_after_a_restart_of_redis_the_next_call_works_with_asyncio(
    own_common: CommonSettings, own_redis: OwnRedis
) -> None:
    async with AsyncLedger(own_common) as store:
        await store.run(reports.ping())

        own_redis.stop()
        own_redis.start()

        assert await store.run(reports.ping()) > 0
        assert (await store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))).new


async def test_a_redis_that_is_down_is_unavailable_at_once(
    own_common: CommonSettings, own_store: Ledger, own_redis: OwnRedis
) -> None:
    own_redis.stop()

    started_s = time.monotonic()
    with pytest.raises(LedgerUnavailable):
        own_store.run(reports.ping())
    async with AsyncLedger(own_common) as store:
        with pytest.raises(LedgerUnavailable):
            await store.run(reports.ping())
    assert time.monotonic() - started_s < AIR_S


def test_a_lost_ledger_does_not_tell_the_redis_password(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://:sesame@127.0.0.1:{own_redis.port}/0")
    store = Ledger(CommonSettings())
    own_redis.stop()

    with pytest.raises(LedgerUnavailable) as caught:
        store.run(reports.ping())

    assert "sesame" not in f"{caught.value} {caught.value!r} {caught.value.__cause__}"


def test_a_redis_that_refuses_to_write_is_unavailable(
    own_store: Ledger, own_redis: OwnRedis
) -> None:
    own_store._redis.config_set("maxmemory", "1")

    with pytest.raises(LedgerUnavailable):
        own_store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))


async def test_hundreds_of_steps_at_once_are_all_carried_out(common: CommonSettings) -> None:
    patient = common.model_copy(update={"redis_worker_timeout_s": 10.0})
    async with AsyncLedger(patient) as store:
        answered = await asyncio.gather(*(store.run(reports.ping()) for _ in range(300)))
    assert len(answered) == 300


def test_many_at_once_share_a_few_connections(own_store: Ledger, own_redis: OwnRedis) -> None:
    with ThreadPoolExecutor(100) as callers:
        answers = list(callers.map(lambda _: own_store.run(reports.ping()), range(1000)))
    assert all(answers)
    asking = 1  # the connection of this look itself
    assert own_store._redis.info("clients")["connected_clients"] <= AT_ONCE + asking


def test_many_at_once_are_given_up_in_time_by_a_redis_that_hangs(
    own_store: Ledger, own_redis: OwnRedis
) -> None:
    def given_up_after_s(_: int) -> float:
        began_s = time.monotonic()
        with pytest.raises(LedgerUnavailable):
            own_store.run(reports.ping())
        return time.monotonic() - began_s

    own_store.warm_up(AT_ONCE)
    with own_redis.frozen(), ThreadPoolExecutor(100) as callers:
        assert max(callers.map(given_up_after_s, range(100))) < TIMEOUT_S + AIR_S
