"""Is every answer to LiveKit counted exactly once, also when Redis was away at that moment?"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio
import redis

from dispatcher.domain import state_machine
from dispatcher.domain.metrics import Window
from dispatcher.domain.models import State
from dispatcher.ledger import dispatches, reports
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.client import Ledger
from dispatcher.settings import CommonSettings
from tests.support.offers import ACCEPT, REJECT, REJECT_EVERYWHERE, Offered, identity
from tests.support.ownredis import OwnRedis
from tests.support.values import AGENT_NAME, counts, eventually, new_dispatch
from worker_agent.decisions import Decision, Reason
from worker_agent.metrics import AgentMetrics
from worker_agent.request_filter import RequestFilter
from worker_agent.summary import Summaries

COUNTERS = f"usher:metrics:agent:acme:box-1:{AGENT_NAME}"
PATIENT_S = 20.0


@pytest.fixture
def own(own_redis: OwnRedis) -> Iterator[redis.Redis]:
    """The test's own Redis, looked at directly."""
    with redis.Redis.from_url(own_redis.url, decode_responses=True) as client:
        yield client


@pytest_asyncio.fixture
async def own_store(own_common: CommonSettings) -> AsyncIterator[AsyncLedger]:
    async with AsyncLedger(own_common) as store:
        yield store


async def dispatched(store: AsyncLedger) -> None:
    """`dsp_1`, on its way to an agent server; every script is in Redis's cache then."""
    await store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))
    dispatch = await store.run(dispatches.read("dsp_1"))
    assert dispatch is not None
    await store.run(
        dispatches.advance(Advance(dispatch, state_machine.DISPATCH_STARTED, due_in_s=12))
    )
    await store.run(
        dispatches.advance(Advance(dispatch, state_machine.DISPATCH_CREATED, due_in_s=7))
    )


async def test_answers_given_while_redis_is_away_are_counted_when_it_is_back(
    own_redis: OwnRedis, own: redis.Redis, own_store: AsyncLedger
) -> None:
    request_filter = RequestFilter(identity(), own_store)
    own_redis.stop()
    foreign, ours = Offered("AJ_1", dispatch_id="", client_id=""), Offered("AJ_2")
    await request_filter(foreign.request)
    await request_filter(ours.request)
    assert (foreign.answers, ours.answers) == ([ACCEPT], [REJECT])
    own_redis.start()

    for _ in range(3):  # with the agent server's next reports
        await request_filter.metrics.flush(within_s=PATIENT_S)

    assert counts(own, COUNTERS) == {"rejects:ledger_unavailable": 1}
    of_nobody = f"usher:metrics:agent::box-1:{AGENT_NAME}"
    assert counts(own, of_nobody) == {"accepts:not_dispatched_by_usher": 1}


async def test_what_redis_has_counted_without_being_able_to_say_so_is_not_counted_again(
    own_redis: OwnRedis, own: redis.Redis, own_store: AsyncLedger
) -> None:
    metrics = AgentMetrics(identity(), own_store)
    metrics.note("acme", {"rejects:full": 1})
    await metrics.flush(within_s=PATIENT_S)  # the script is in the cache
    metrics.note("acme", {"rejects:full": 1})
    with own_redis.frozen():
        await metrics.flush(within_s=0.2)
        metrics.note("acme", {"rejects:full": 1})

    await metrics.flush(within_s=PATIENT_S)
    # What it was sent while it hung it does now, before or after that.
    await eventually(lambda: own.info("commandstats")["cmdstat_evalsha"]["calls"] >= 4)

    assert counts(own, COUNTERS) == {"rejects:full": 3}


async def test_a_claim_that_redis_comes_to_too_late_is_neither_granted_nor_counted(
    own_redis: OwnRedis, own: redis.Redis, own_store: AsyncLedger
) -> None:
    await dispatched(own_store)
    request_filter = RequestFilter(identity(), own_store)
    asked_at = time.monotonic()
    request_filter.clock.heard(await own_store.run(reports.ping()), asked_at=asked_at)
    before = own.info("commandstats")["cmdstat_evalsha"]["calls"]
    offered = Offered()
    with own_redis.frozen():
        await request_filter(offered.request)  # it waits for 0.3 s
        await asyncio.sleep(0.2)  # and Redis hangs for longer
    assert offered.answers == [REJECT]

    await eventually(lambda: own.info("commandstats")["cmdstat_evalsha"]["calls"] > before)
    await request_filter.metrics.flush(within_s=PATIENT_S)

    record = await own_store.run(dispatches.read("dsp_1"))
    assert record is not None
    assert (record.state, record.job_id) == (State.DISPATCHED, "")
    assert counts(own, COUNTERS) == {"rejects:ledger_unavailable": 1}


async def test_a_claim_is_granted_whatever_the_clocks_say_when_its_answer_comes_in_time(
    store: Ledger, async_store: AsyncLedger, raw: redis.Redis
) -> None:
    await dispatched(async_store)
    request_filter = RequestFilter(identity(), async_store)
    request_filter.clock.heard(1, asked_at=time.monotonic())  # Redis's clock has been set since
    offered = Offered()

    await request_filter(offered.request)

    assert offered.answers == [ACCEPT]
    assert counts(raw, COUNTERS) == {"accepts:claimed": 1}


@pytest.mark.parametrize(
    ("claimed_by", "counted"), [("server-1", 1), ("server-2", 2)], ids=["its own", "another's"]
)
async def test_a_claim_whose_answer_was_lost_is_counted_once(
    claimed_by: str, counted: int, async_store: AsyncLedger, raw: redis.Redis
) -> None:
    await dispatched(async_store)
    lost = RequestFilter(identity(), async_store)
    offered, again = Offered(), Offered()
    await lost(offered.request)
    raw.hset("usher:dispatch:dsp_1", "agent_server_id", claimed_by)

    await RequestFilter(identity(), async_store)(again.request)  # which has heard of no claim

    assert again.answers == [ACCEPT]
    assert counts(raw, COUNTERS) == {"accepts:claimed": counted}


async def test_a_job_that_is_offered_twice_is_two_requests(
    async_store: AsyncLedger, raw: redis.Redis
) -> None:
    await dispatched(async_store)
    request_filter = RequestFilter(identity(), async_store)

    for _ in range(2):
        await request_filter(Offered().request)

    assert counts(raw, COUNTERS) == {"accepts:claimed": 2}


async def test_a_reject_is_counted_before_anybody_learns_of_it(
    async_store: AsyncLedger, raw: redis.Redis
) -> None:
    """So a process that is killed at any moment has counted what its log and LiveKit know."""
    seen: list[dict[str, int]] = []
    offered = Offered(dispatch_id="dsp_none")
    answer = offered._reject

    async def reject(terminate: bool) -> None:
        seen.append(counts(raw, COUNTERS))
        await answer(terminate)

    offered.request._on_reject = reject
    await RequestFilter(identity(), async_store)(offered.request)

    assert offered.answers == [REJECT_EVERYWHERE]
    assert seen == [{"rejects:unknown_dispatch": 1}]


async def test_agent_servers_add_up_and_each_sees_its_own_container(
    async_store: AsyncLedger, raw: redis.Redis
) -> None:
    full = {"rejects:full": 1}
    for box, number in (("box-1", 2), ("box-1", 3), ("box-2", 7)):
        server = identity(container=box)
        one = AgentMetrics(server, async_store)
        one._server = server.__class__(**{**vars(server), "agent_server_id": f"{box}-{number}"})
        for _ in range(number):
            one.note("acme", full)
        await one.flush(within_s=PATIENT_S)

    found = await AgentMetrics(identity(), async_store).read(Window.ALL)

    assert [(each.container, each.rejects) for each in found] == [("box-1", 5)]
    assert found[0].rejection_rate == 1.0


async def test_an_agent_server_of_one_client_reads_no_others_numbers(
    async_store: AsyncLedger, raw: redis.Redis
) -> None:
    everybodys = AgentMetrics(identity(), async_store)
    for client_id in ("acme", "globex"):
        everybodys.note(client_id, {"rejects:full": 1})
    await everybodys.flush(within_s=PATIENT_S)

    acmes = await AgentMetrics(identity(client_id="acme"), async_store).read(Window.ALL)

    assert [each.client_id for each in acmes] == ["acme"]
    everybody = await everybodys.read(Window.ALL)
    assert [each.client_id for each in everybody] == ["acme", "globex"]


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [r.__dict__ for r in caplog.records if r.name == "worker_agent.summary"]


async def test_a_summary_is_logged_now_and_then_and_all_of_it_on_a_signal(
    async_store: AsyncLedger, raw: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "worker_agent.summary")
    metrics = AgentMetrics(identity(), async_store)
    running = asyncio.create_task(Summaries(identity(), metrics).run(every_s=0.05))
    await eventually(lambda: lines(caplog))
    first = lines(caplog)[0]
    assert (first["window"], first["requests"]) == ("5m", 0)
    assert (first["acceptance_rate"], first["reject_reasons"]) == ("n/a", "none")
    running.cancel()

    caplog.clear()
    metrics.note("acme", {"rejects:full": 1})
    metrics.note("acme", {"accepts:claimed": 3})
    running = asyncio.create_task(Summaries(identity(), metrics).run(every_s=0))
    await asyncio.sleep(0)  # it waits for the signal then
    os.kill(os.getpid(), signal.SIGUSR1)
    await eventually(lambda: len(lines(caplog)) == len(Window))
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running

    assert [each["window"] for each in lines(caplog)] == list(Window)
    for each in lines(caplog):
        assert (each["client_id"], each["requests"]) == ("acme", 4)
        assert (each["acceptance_rate"], each["rejection_rate"]) == ("75.0 %", "25.0 %")
        assert (each["accept_reasons"], each["reject_reasons"]) == ("claimed 3", "full 1")


async def test_without_redis_the_summary_is_of_this_process_and_says_so(
    own_redis: OwnRedis, own_store: AsyncLedger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "worker_agent.summary")
    metrics = AgentMetrics(identity(), own_store)
    own_redis.stop()
    metrics.granted("acme", "AJ_1", Decision(accept=True, reason=Reason.CLAIMED))
    metrics.note("acme", {"rejects:full": 1})

    await Summaries(identity(), metrics).log([Window.MINUTES])

    (line,) = lines(caplog)
    assert (line["requests"], line["accepts"], line["rejects"]) == (2, 1, 1)
    assert "Redis does not answer" in str(line["window"])
