"""What does a caller of the ledger meet when Redis hangs, goes away or comes back?"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from typing import TypeVar

import pytest
import redis

from dispatcher import keys, ledger, reports
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import Created
from dispatcher.settings import CommonSettings
from dispatcher.step import Step
from dispatcher.store import _REST_S, AsyncLedger, Ledger
from tests.ownredis import OwnRedis
from tests.support import eventually, new_dispatch

T = TypeVar("T")

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
    assert own_store.run(ledger.create(new_dispatch(), due_in_s=2, detail={})).new


async def test_after_a_restart_of_redis_the_next_call_works_with_asyncio(
    own_common: CommonSettings, own_redis: OwnRedis
) -> None:
    async with AsyncLedger(own_common) as store:
        await store.run(reports.ping())

        own_redis.stop()
        own_redis.start()

        assert await store.run(reports.ping()) > 0
        assert (await store.run(ledger.create(new_dispatch(), due_in_s=2, detail={}))).new


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


def new(name: str) -> Step[Created]:
    """A record of a room of its own, with its message."""
    return ledger.create(new_dispatch(name, room_name=name), due_in_s=2, detail={})


def ask(store: Ledger, step: Step[T]) -> T:
    """By the connection on which something may have been posted."""
    [reply] = store.replies(store.ask([step]))
    if isinstance(reply, LedgerUnavailable):
        raise reply
    return step.parse(reply)


def test_what_is_posted_is_done_though_nobody_asks_for_more(
    own_store: Ledger, own_redis: OwnRedis
) -> None:
    own_store.post(new("dsp_1"))
    own_store.post(new("dsp_2"))
    with redis.Redis.from_url(own_redis.url, decode_responses=True) as raw:
        until_s = time.monotonic() + AIR_S
        while len(found := raw.lrange(keys.DISPATCH_QUEUE, 0, -1)) < 2:
            assert time.monotonic() < until_s
    # A worker takes from the right: in the order in which they were asked for.
    assert ["dsp_2" in found[0], "dsp_1" in found[1]] == [True, True]


def test_who_asks_after_it_gets_his_own_answer(own_store: Ledger) -> None:
    for number in range(3):
        own_store.post(new(f"dsp_{number}"))
        own_store.post(ledger.wake())
        assert ask(own_store, reports.ping()) > 0
        assert ask(own_store, new(f"dsp_{number}")).dispatch_id == f"dsp_{number}"


def test_a_posted_step_that_redis_refuses_is_told_to_the_log_alone(
    own_store: Ledger, own_redis: OwnRedis, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(own_redis.url) as raw:
        raw.set(keys.DISPATCH_QUEUE, "no list")
    own_store.post(new("dsp_1"))
    assert ask(own_store, reports.ping()) > 0
    [record] = [each for each in caplog.records if each.name == "dispatcher.store"]
    assert "WRONGTYPE" in vars(record)["error"]


def test_after_a_restart_of_redis_who_asks_after_it_gets_his_answer(
    own_store: Ledger, own_redis: OwnRedis
) -> None:
    own_store.post(ledger.wake())
    own_redis.stop()
    own_redis.start()
    assert ask(own_store, reports.ping()) > 0


def test_a_redis_that_hangs_costs_who_posts_nothing_and_who_asks_one_time_out(
    own_store: Ledger, own_redis: OwnRedis
) -> None:
    assert ask(own_store, reports.ping()) > 0
    with own_redis.frozen():
        began_s = time.monotonic()
        own_store.post(ledger.wake())
        assert time.monotonic() - began_s < TIMEOUT_S / 2
        with pytest.raises(LedgerUnavailable):
            ask(own_store, reports.ping())
        assert time.monotonic() - began_s < TIMEOUT_S + AIR_S
        own_store.post(ledger.wake())  # refused for the moment, and nobody hears of it
    time.sleep(_REST_S)
    assert ask(own_store, reports.ping()) > 0


def test_a_redis_that_refuses_to_write_is_unavailable(
    own_store: Ledger, own_redis: OwnRedis
) -> None:
    own_store._redis.config_set("maxmemory", "1")

    with pytest.raises(LedgerUnavailable):
        own_store.run(ledger.create(new_dispatch(), due_in_s=2, detail={}))


async def test_hundreds_of_steps_at_once_are_all_carried_out(common: CommonSettings) -> None:
    patient = common.model_copy(update={"redis_worker_timeout_s": 10.0})
    async with AsyncLedger(patient) as store:
        answered = await asyncio.gather(*(store.run(reports.ping()) for _ in range(300)))
    assert len(answered) == 300
