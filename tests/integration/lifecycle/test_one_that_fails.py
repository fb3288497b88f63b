"""Does what one record, client or server does wrong stop the work for the others?"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis

from dispatcher.clients.client_registry import ClientRegistry
from dispatcher.domain.models import Dispatch, State
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import dispatches, endings, guarding, keys, reports
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.guarding import Guard, Work
from dispatcher.ledger.outbox import DueEvent
from dispatcher.lifecycle import sweeping
from dispatcher.lifecycle.services import Services
from dispatcher.settings import CommonSettings
from dispatcher.worker import heartbeat
from tests.support.house import Request
from tests.support.ownredis import OwnRedis
from tests.support.sockets import answering, listening
from tests.support.values import a_dispatch, eventually

METRICS = "usher:metrics:ledger"
GONE = "gone"  # a client that is not configured any more


def errors_of(raw: redis.Redis, work: Work) -> int:
    return int(raw.hget(METRICS, f"internal_errors:{work}") or 0)


def due(raw: redis.Redis, *dispatch_ids: str) -> None:
    raw.zadd("usher:due", dict.fromkeys(dispatch_ids, 1))


def two_clients(services: Services, *, sick_port: int) -> Services:
    """`acme`, which is well, and before it `sick`, whose LiveKit is at that port."""
    (acme,) = services.clients.clients
    livekit = replace(acme.livekit, url=f"ws://127.0.0.1:{sick_port}")
    sick = replace(acme, client_id="sick", livekit=livekit)
    return replace(services, clients=ClientRegistry(clients=(sick, acme)))


@pytest.fixture
def of(request_dispatch: Request, raw: redis.Redis) -> Callable[..., str]:
    """Makes a record in that state, which is due; returns its id."""

    def make(dispatch_id: str, *, state: str = "queued", **changes: object) -> str:
        request_dispatch(dispatch_id, room_name=f"room-{dispatch_id}", **changes)
        raw.hset(f"usher:dispatch:{dispatch_id}", "state", state)
        due(raw, dispatch_id)
        return dispatch_id

    return make


def read(store: Ledger, dispatch_id: str) -> Dispatch:
    found = store.run(dispatches.read(dispatch_id))
    assert found is not None
    return found


async def woken(services: Services) -> list[str]:
    found = await sweeping.sweep_all(services)
    return [due.event_id if isinstance(due, DueEvent) else due.dispatch_id for due in found]


@pytest.mark.parametrize("body", ["[]", '"x"', "", "null"])
async def test_a_livekit_that_answers_garbage_silences_no_other(
    body: str, services: Services, raw: redis.Redis
) -> None:
    async with listening(answering(503, body)) as port:
        two = two_clients(services, sick_port=port)
        beating = asyncio.create_task(heartbeat.beat(two, ["verify"]))

        await eventually(lambda: raw.hexists("usher:alive", "livekit:acme"))

        raw.hdel("usher:alive", "livekit:acme")
        await eventually(lambda: raw.hexists("usher:alive", "livekit:acme"))  # the next beat
        assert not beating.done()
        assert not raw.hexists("usher:alive", "livekit:sick")
        assert errors_of(raw, Work.LIVEKIT_PROBE) == 0  # that was to be expected
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)


async def test_a_client_that_cannot_be_probed_at_all_silences_no_other(
    services: Services, raw: redis.Redis
) -> None:
    two = two_clients(services, sick_port=1)
    sick, acme = two.clients.clients
    odd = replace(sick, livekit=replace(sick.livekit, url="ws://[::1"))  # no URL at all
    two = replace(two, clients=ClientRegistry(clients=(odd, acme)))
    beating = asyncio.create_task(heartbeat.beat(two, ["verify"]))

    await eventually(lambda: raw.hexists("usher:alive", "livekit:acme"))
    await eventually(lambda: errors_of(raw, Work.LIVEKIT_PROBE) == 1)

    assert not beating.done()
    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)


async def test_a_livekit_that_answers_garbage_takes_nobodys_wake_ups(
    services: Services, store: Ledger, of: Callable[..., str]
) -> None:
    async with listening(answering(503, "[]")) as port:
        two = two_clients(services, sick_port=port)
        sick = of("dsp_sick", client_id="sick", state="dispatched", deadline_ms=900)
        well = [of(f"dsp_{number}") for number in range(3)]

        assert sorted(await woken(two)) == well

    assert read(store, sick).failure_reason == "join_timeout"


async def test_a_record_with_which_a_step_fails_holds_up_no_other(
    services: Services, store: Ledger, raw: redis.Redis, of: Callable[..., str]
) -> None:
    of("dsp_broken", deadline_ms=900)
    live = next(key for key in raw.scan_iter("usher:live:*"))
    raw.delete(live)
    raw.rpush(live, "not the id of a dispatch")  # so no step can end it
    late, well = of("dsp_late", deadline_ms=900), of("dsp_well")

    assert await woken(services) == [well]

    assert read(store, late).state is State.FAILED
    assert errors_of(raw, Work.SWEEP) == 1


async def test_a_record_that_redis_cannot_read_is_parked_and_holds_up_no_other(
    services: Services, raw: redis.Redis, of: Callable[..., str]
) -> None:
    broken, well = of("dsp_broken"), of("dsp_well")
    raw.delete(f"usher:dispatch:{broken}:timeline")
    raw.set(f"usher:dispatch:{broken}:timeline", "no list")

    assert await woken(services) == [well]

    assert raw.hkeys("usher:parked") == [broken]


async def test_words_that_are_no_unicode_make_no_record_unreadable(
    services: Services, store: Ledger, raw: redis.Redis, of: Callable[..., str]
) -> None:
    odd, well = of("dsp_odd"), of("dsp_well")
    raw.hset(f"usher:dispatch:{odd}", "failure_message", b"no file caf\xe9")

    assert sorted(await woken(services)) == [odd, well]

    assert read(store, odd).failure_message.startswith("no file caf")
    assert raw.hkeys("usher:parked") == []


async def test_an_event_that_cannot_be_read_holds_up_no_other_and_no_sweep(
    services: Services, raw: redis.Redis, of: Callable[..., str]
) -> None:
    (acme,) = services.clients.clients
    wanting = [
        replace(acme, client_id=client_id, webhook_url="https://hook.example")
        for client_id in ("sick", "acme")
    ]
    two = replace(services, clients=ClientRegistry(clients=tuple(wanting)))
    raw.hset("usher:event:evt_sick", mapping={"dispatch_id": "dsp_sick", "summary": "{"})
    raw.hset("usher:event:evt_acme", mapping={"dispatch_id": "dsp_1", "summary": "{}"})
    for client in ("sick", "acme"):
        raw.zadd(f"usher:outbox:{client}", {f"evt_{client}": 1})
    well = of("dsp_well")

    assert await woken(two) == [well, "evt_sick", "evt_acme"]


async def test_what_a_part_has_reported_badly_blinds_nobody(
    services: Services, store: Ledger, raw: redis.Redis, of: Callable[..., str]
) -> None:
    well = of("dsp_well")
    for key in ("usher:alive", "usher:agent_servers", keys.WORKER_SETTINGS):
        raw.hset(key, "broken", "99999999999999 no JSON")
    assert store.run(reports.workers()) == []
    standing_in = asyncio.create_task(sweeping.stand_in_for_beat(services))

    messages = await eventually(lambda: raw.lrange("dispatch", 0, -1))

    assert any(well in message for message in messages)
    assert not standing_in.done()
    standing_in.cancel()
    await asyncio.gather(standing_in, return_exceptions=True)


async def test_a_message_that_cannot_be_published_holds_up_no_other(
    services: Services, raw: redis.Redis
) -> None:
    wake_ups = [
        a_dispatch(dispatch_id=name, state=State.QUEUED, room_name=room)
        for name, room in (("dsp_odd", object()), ("dsp_well", "room"))
    ]

    await sweeping.publish_all(services, wake_ups)

    assert any("dsp_well" in message for message in raw.lrange("dispatch", 0, -1))
    assert errors_of(raw, Work.PUBLISH) == 1


@pytest.mark.parametrize(
    ("state", "ends", "reason"),
    [
        ("queued", State.FAILED, "client_removed"),
        ("dispatched", State.FAILED, "client_removed"),
        ("joined", State.FAILED, "client_removed"),
        ("leaving", State.ENDED, ""),
    ],
)
async def test_the_session_of_a_client_that_was_removed_ends_in_its_time_with_the_reason(
    state: str,
    ends: State,
    reason: str,
    services: Services,
    store: Ledger,
    raw: redis.Redis,
    of: Callable[..., str],
) -> None:
    gone, well = of("dsp_gone", client_id=GONE, state=state), of("dsp_well")

    assert await woken(services) == [well]
    assert read(store, gone).state == state  # the file may just be about to be read again

    long_ago = read(store, gone).read_at_ms - 61_000
    for name in ("updated_at_ms", "alive_till_ms", "deadline_at_ms"):
        raw.hset(f"usher:dispatch:{gone}", name, long_ago)
    due(raw, gone)
    await sweeping.sweep(services)

    record = read(store, gone)
    assert (record.state, record.failure_reason) == (ends, reason)
    told = record.failure_message or record.timeline[-1].detail["reason"]
    assert told == f"client {GONE!r} is not configured any more"
    assert raw.zscore("usher:due", gone) is None


async def test_what_was_cancelled_of_a_client_that_was_removed_is_not_looked_at_for_ever(
    services: Services, store: Ledger, raw: redis.Redis, of: Callable[..., str]
) -> None:
    gone = of("dsp_gone", client_id=GONE, state="dispatched")
    store.run(endings.cancel(read(store, gone), retention_s=600))
    due(raw, gone)
    assert await woken(services) == []
    assert raw.zscore("usher:due", gone) is not None

    raw.hset(f"usher:dispatch:{gone}", "updated_at_ms", read(store, gone).read_at_ms - 61_000)
    due(raw, gone)
    await sweeping.sweep(services)

    assert raw.zscore("usher:due", gone) is None


async def test_periodic_work_goes_on_after_any_exception_and_is_logged_once_and_counted(
    async_store: AsyncLedger,
    raw: redis.Redis,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guarding, "AGAIN_S", 0.01)
    begun = 0

    async def run() -> None:
        nonlocal begun
        begun += 1
        if begun <= 3:
            raise AttributeError("nobody has thought of that")

    with caplog.at_level(logging.ERROR):
        await asyncio.wait_for(Guard(async_store).keep(Work.HEARTBEAT, run), 10)

    assert begun == 4
    assert errors_of(raw, Work.HEARTBEAT) == 3
    (line,) = [each for each in caplog.records if each.name == "dispatcher.ledger.guarding"]
    assert line.getMessage() == "heartbeat has failed, and goes on"
    assert line.exc_info is not None


async def test_periodic_work_goes_on_without_redis_too(
    own_common: CommonSettings, own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "AGAIN_S", 0.01)
    own_redis.stop()
    errors = [AttributeError("whatever"), LedgerUnavailable("Redis is down")]

    async def run() -> None:
        if errors:
            raise errors.pop()

    async with AsyncLedger(own_common) as store:
        await asyncio.wait_for(Guard(store).keep(Work.HEARTBEAT, run), 10)

    assert errors == []
