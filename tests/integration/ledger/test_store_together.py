"""What do steps that are wanted in the same moment cost, and is one of them trouble to others?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis

from dispatcher.domain.models import NO_LIMITS
from dispatcher.domain.quotas import Admission
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import dispatches, keys, reports
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.dispatches import Created
from dispatcher.ledger.step import Step
from dispatcher.settings import CommonSettings
from tests.support.ownredis import OwnRedis
from tests.support.values import new_dispatch


@pytest.fixture
async def together(own_redis: OwnRedis, own_common: CommonSettings) -> AsyncIterator[AsyncLedger]:
    async with AsyncLedger(own_common) as store:
        await store.run(creating(0))  # Redis knows the script, and a connection is open
        yield store


def creating(number: int) -> Step[Created]:
    new = new_dispatch(f"dsp_{number}", room_name=f"room-{number}")
    return dispatches.create(new, due_in_s=2, detail={}, admission=Admission(limits=NO_LIMITS))


async def test_each_gets_its_own_answer_and_redis_is_asked_once(
    together: AsyncLedger, own_redis: OwnRedis
) -> None:
    with redis.Redis.from_url(own_redis.url) as raw:
        before = raw.info("stats")["total_reads_processed"]
        answers = await asyncio.gather(*(together.run(creating(n)) for n in range(1, 21)))
        reads = raw.info("stats")["total_reads_processed"] - before
    assert [answer.dispatch_id for answer in answers] == [f"dsp_{n}" for n in range(1, 21)]
    assert reads < 10  # at least twenty when each is asked by itself


async def test_an_error_of_one_is_not_the_others(
    together: AsyncLedger, own_redis: OwnRedis
) -> None:
    with redis.Redis.from_url(own_redis.url) as raw:
        raw.set(keys.timeline("dsp_2"), "no list")
    first, second, third = await asyncio.gather(
        *(together.run(creating(n)) for n in (1, 2, 3)), return_exceptions=True
    )
    assert isinstance(first, Created)
    assert isinstance(second, LedgerUnavailable)
    assert isinstance(third, Created)


async def test_who_waits_no_longer_takes_nothing_from_the_others(together: AsyncLedger) -> None:
    tasks = [asyncio.create_task(together.run(creating(n))) for n in (1, 2, 3)]
    await asyncio.sleep(0)  # they have asked
    tasks[1].cancel()
    first, second, third = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(first, Created)
    assert isinstance(second, asyncio.CancelledError)
    assert isinstance(third, Created)


async def test_scripts_that_redis_has_forgotten_are_sent_again(
    together: AsyncLedger, own_redis: OwnRedis
) -> None:
    with redis.Redis.from_url(own_redis.url) as raw:
        raw.script_flush()
    answers = await asyncio.gather(*(together.run(creating(n)) for n in (1, 2)))
    assert all(answer.new for answer in answers)


async def test_after_a_restart_of_redis_all_are_answered(
    together: AsyncLedger, own_redis: OwnRedis
) -> None:
    own_redis.stop()
    own_redis.start()
    answers = await asyncio.gather(*(together.run(creating(n)) for n in (1, 2)))
    assert all(answer.new for answer in answers)


async def test_a_redis_that_hangs_costs_all_of_them_one_time_out(
    together: AsyncLedger, own_redis: OwnRedis
) -> None:
    began = asyncio.get_running_loop().time()
    with own_redis.frozen():
        answers = await asyncio.gather(
            *(together.run(creating(n)) for n in (1, 2, 3)), return_exceptions=True
        )
    assert all(isinstance(answer, LedgerUnavailable) for answer in answers)
    assert asyncio.get_running_loop().time() - began < 2 * together.timeout_s


async def test_what_is_no_answer_of_the_step_reaches_who_has_asked(together: AsyncLedger) -> None:
    def wrong(_: object) -> float:
        raise ValueError("not what was expected")

    step = reports.ping()
    odd = Step(step.script_name, step.keys, step.args, wrong)
    first, second = await asyncio.gather(
        together.run(odd), together.run(step), return_exceptions=True
    )
    assert isinstance(first, ValueError)
    assert isinstance(second, float | int)
