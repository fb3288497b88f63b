"""Does whoever waits for news of a dispatch hear of it at once?"""

from __future__ import annotations

import asyncio

import redis
import redis.asyncio

from dispatcher.domain import state_machine
from dispatcher.ledger import dispatches
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.guarding import Guard
from dispatcher.ledger.pubsub import Wakeups
from dispatcher.settings import CommonSettings
from tests.support.ownredis import OwnRedis
from tests.support.values import WAIT_S, eventually, new_dispatch

CHANNEL = "usher:wake:dsp_1"


async def heard(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), WAIT_S)


async def told(client: redis.Redis, channel: str) -> None:
    """Publish as soon as there is a subscription."""
    await eventually(lambda: client.pubsub_numpat() > 0)
    client.publish(channel, "news")


async def test_a_change_of_the_record_wakes_its_listener(
    common: CommonSettings, store: Ledger
) -> None:
    store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))
    dispatch = store.run(dispatches.read("dsp_1"))
    assert dispatch is not None
    wakeups = Wakeups(common, Guard(AsyncLedger(common)))
    async with wakeups.listen("dsp_1") as news, wakeups.listen("dsp_2") as other:
        store.run(
            dispatches.advance(Advance(dispatch, state_machine.DISPATCH_STARTED, due_in_s=12))
        )

        await heard(news)
        assert not other.is_set()
    await wakeups.aclose()


async def test_two_listeners_to_one_dispatch_are_both_woken(
    common: CommonSettings, raw: redis.Redis
) -> None:
    wakeups = Wakeups(common, Guard(AsyncLedger(common)))
    async with wakeups.listen("dsp_1") as first, wakeups.listen("dsp_1") as second:
        await told(raw, CHANNEL)

        await heard(first)
        await heard(second)
    await wakeups.aclose()


async def test_one_of_two_listeners_leaving_leaves_the_other_listening(
    common: CommonSettings, raw: redis.Redis
) -> None:
    wakeups = Wakeups(common, Guard(AsyncLedger(common)))
    async with wakeups.listen("dsp_1") as stays:
        async with wakeups.listen("dsp_1"):
            pass
        await told(raw, CHANNEL)
        await heard(stays)
    await wakeups.aclose()


async def test_nothing_is_kept_of_a_listener_that_has_left(
    common: CommonSettings, raw: redis.Redis
) -> None:
    wakeups = Wakeups(common, Guard(AsyncLedger(common)))
    async with wakeups.listen("dsp_1"):
        pass

    assert wakeups._listeners == {}
    async with wakeups.listen("dsp_1") as again:
        await told(raw, CHANNEL)
        await heard(again)
    await wakeups.aclose()


async def test_listeners_hear_again_after_redis_was_restarted(
    own_common: CommonSettings, own_redis: OwnRedis
) -> None:
    wakeups = Wakeups(own_common, Guard(AsyncLedger(own_common)))
    async with wakeups.listen("dsp_1") as news:
        own_redis.stop()
        own_redis.start()
        with redis.Redis.from_url(own_redis.url) as client:
            await told(client, CHANNEL)

        await heard(news)
    await wakeups.aclose()


async def test_listeners_hear_although_redis_was_down_at_the_first_of_them(
    own_common: CommonSettings, own_redis: OwnRedis
) -> None:
    own_redis.stop()
    wakeups = Wakeups(own_common, Guard(AsyncLedger(own_common)))
    async with wakeups.listen("dsp_1"):
        pass
    own_redis.start()

    async with wakeups.listen("dsp_1") as news:
        with redis.Redis.from_url(own_redis.url) as client:
            await told(client, CHANNEL)
        await heard(news)
    await wakeups.aclose()


async def test_a_hung_redis_does_not_hold_a_listener_up(
    own_common: CommonSettings, own_redis: OwnRedis
) -> None:
    wakeups = Wakeups(own_common, Guard(AsyncLedger(own_common)))
    with own_redis.frozen():
        async with asyncio.timeout(5), wakeups.listen("dsp_1") as news:
            assert not news.is_set()
    await wakeups.aclose()


async def test_a_hundred_listeners_at_once_share_one_connection_and_all_hear(
    common: CommonSettings, raw: redis.Redis
) -> None:
    wakeups = Wakeups(common, Guard(AsyncLedger(common)))

    async def hear(number: int) -> bool:
        async with wakeups.listen(f"dsp_{number}") as news:
            ready.release()
            await asyncio.wait_for(news.wait(), WAIT_S)
            return True

    ready = asyncio.Semaphore(0)
    heard = [asyncio.create_task(hear(number)) for number in range(100)]
    for _ in heard:
        await ready.acquire()
    assert len(raw.client_list(_type="pubsub")) == 1
    for number in range(100):
        raw.publish(f"usher:wake:dsp_{number}", "event")
    assert all(await asyncio.gather(*heard))
    await wakeups.aclose()


async def test_a_listener_meets_none_of_what_becomes_of_the_shared_connection(
    own_common: CommonSettings, own_redis: OwnRedis
) -> None:
    """redis-py has all who use a connection reconnect it at the same time."""
    wakeups = Wakeups(own_common, Guard(AsyncLedger(own_common)))

    async def come_and_go(number: int) -> None:
        for turn in range(60):
            async with wakeups.listen(f"dsp_{number}_{turn}"):
                await asyncio.sleep(0.01)

    async def lose_connections() -> None:
        for _ in range(6):
            await asyncio.sleep(0.1)
            await asyncio.to_thread(own_redis.stop)
            await asyncio.to_thread(own_redis.start)

    together = await asyncio.gather(
        lose_connections(), *map(come_and_go, range(30)), return_exceptions=True
    )

    assert [raised for raised in together if raised is not None] == []
    async with wakeups.listen("dsp_1") as news:
        with redis.Redis.from_url(own_redis.url) as client:
            await told(client, CHANNEL)
        await heard(news)
    await wakeups.aclose()
