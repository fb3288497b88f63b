"""What does the request filter answer LiveKit, and what does it leave in ledger, counters and log?

livekit-agents' own JobRequest, with the real ledger; LiveKit's side of it is noted by the test.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis
from livekit.agents.job import JobAcceptArguments

from dispatcher.domain import state_machine
from dispatcher.domain.models import Dispatch, State
from dispatcher.ledger import dispatches
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.client import Ledger
from dispatcher.settings import CommonSettings
from tests.support.offers import ACCEPT, REJECT, REJECT_EVERYWHERE, Offered, identity
from tests.support.ownredis import OwnRedis
from tests.support.values import AGENT_NAME, counts, keyspace, new_dispatch
from worker_agent.request_filter import RequestFilter

COUNTERS = f"usher:metrics:agent:acme:box-1:{AGENT_NAME}"


@pytest.fixture
def dispatched(store: Ledger) -> Dispatch:
    """`dsp_1`, on its way to an agent server."""
    store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))
    dispatch = store.run(dispatches.read("dsp_1"))
    assert dispatch is not None
    store.run(dispatches.advance(Advance(dispatch, state_machine.DISPATCH_STARTED, due_in_s=12)))
    store.run(dispatches.advance(Advance(dispatch, state_machine.DISPATCH_CREATED, due_in_s=7)))
    return dispatch


@pytest.fixture
def record(store: Ledger) -> Callable[[], Dispatch]:
    def read() -> Dispatch:
        dispatch = store.run(dispatches.read("dsp_1"))
        assert dispatch is not None
        return dispatch

    return read


async def test_an_accepted_job_is_in_the_record_and_the_counters(
    dispatched: Dispatch,
    async_store: AsyncLedger,
    record: Callable[[], Dispatch],
    raw: redis.Redis,
) -> None:
    offered = Offered()

    await RequestFilter(identity(), async_store)(offered.request)

    assert offered.answers == [ACCEPT]
    assert offered.accepted_with is not None
    assert offered.accepted_with.attributes == {
        "usher.dispatch_id": "dsp_1",
        "usher.generation": "1",
    }
    assert offered.accepted_with.identity == "agent-AJ_1"  # unique: a fixed one evicts its twin
    now = record()
    assert (now.state, now.job_id, now.agent_server_id, now.agent_container) == (
        State.ACCEPTED,
        "AJ_1",
        "server-1",
        "box-1",
    )
    assert [event.event for event in now.timeline][-2:] == ["offered", "accepted"]
    assert counts(raw, COUNTERS) == {"accepts:claimed": 1}
    assert "dsp_1" in keyspace(raw)["usher:due"]


async def test_of_ten_offers_at_once_one_is_accepted(
    dispatched: Dispatch, async_store: AsyncLedger, raw: redis.Redis
) -> None:
    offers = [Offered(f"AJ_{number}") for number in range(10)]
    request_filter = RequestFilter(identity(slots=20), async_store)

    await asyncio.gather(*(request_filter(offered.request) for offered in offers))

    answers = sorted(answer for offered in offers for answer in offered.answers)
    assert answers == [ACCEPT] + [REJECT_EVERYWHERE] * 9
    assert counts(raw, COUNTERS) == {"accepts:claimed": 1, "rejects:second_job": 9}


async def test_the_same_offer_again_is_accepted_again(
    dispatched: Dispatch, async_store: AsyncLedger
) -> None:
    request_filter = RequestFilter(identity(), async_store)
    for _ in range(2):
        offered = Offered()
        await request_filter(offered.request)
        assert offered.answers == [ACCEPT]


async def test_a_job_that_has_just_started_has_its_slot_and_no_second_one(
    async_store: AsyncLedger, raw: redis.Redis
) -> None:
    running: list[str] = []
    request_filter = RequestFilter(identity(slots=2), async_store)
    request_filter.active_jobs = lambda: running
    used = []

    async def starts(arguments: JobAcceptArguments) -> None:
        running.append(first.request.job.id)
        used.append(request_filter.used_slots)

    first, second, third = (Offered(f"AJ_{n}", dispatch_id="", generation="") for n in range(3))
    first.request._on_accept = starts
    await request_filter(first.request)
    running.append("AJ_of_somebody_else")
    await request_filter(second.request)
    running.remove("AJ_of_somebody_else")
    await request_filter(third.request)

    assert used == [1]
    assert (second.answers, third.answers) == ([REJECT], [ACCEPT])


@pytest.mark.parametrize(
    ("server", "offer", "reason"),
    [
        ({"slots": 0}, {}, "full"),
        ({"client_id": "globex"}, {}, "wrong_client"),
        ({}, {"container": "box-2"}, "wrong_container"),
    ],
)
async def test_a_reject_of_this_server_is_counted_and_noted_and_livekit_may_ask_the_next_one(
    server: dict[str, Any],
    offer: dict[str, str],
    reason: str,
    dispatched: Dispatch,
    async_store: AsyncLedger,
    record: Callable[[], Dispatch],
    raw: redis.Redis,
) -> None:
    offered = Offered(**offer)

    await RequestFilter(identity(**server), async_store)(offered.request)

    assert offered.answers == [REJECT]
    now = record()
    assert (now.state, now.attempt.reason) == (State.OFFERED, reason)
    assert now.timeline[-1].event == "rejected"
    assert now.timeline[-1].detail["reason"] == reason
    assert counts(raw, COUNTERS) == {f"rejects:{reason}": 1}


async def test_a_rejected_dispatch_stays_on_the_list_of_what_must_be_looked_at(
    dispatched: Dispatch, async_store: AsyncLedger, raw: redis.Redis
) -> None:
    await RequestFilter(identity(slots=0), async_store)(Offered().request)

    assert "dsp_1" in keyspace(raw).get("usher:due", {})


@pytest.mark.parametrize(
    ("offer", "reason"),
    [({"generation": "2"}, "stale_generation"), ({"dispatch_id": "dsp_none"}, "unknown_dispatch")],
)
async def test_a_job_that_nobody_wants_is_ended_everywhere_and_leaves_the_record_alone(
    offer: dict[str, str],
    reason: str,
    dispatched: Dispatch,
    async_store: AsyncLedger,
    raw: redis.Redis,
) -> None:
    before = keyspace(raw)
    offered = Offered(**offer)

    await RequestFilter(identity(), async_store)(offered.request)

    assert offered.answers == [REJECT_EVERYWHERE]
    assert keyspace(raw) == before
    assert counts(raw, COUNTERS) == {f"rejects:{reason}": 1}


async def test_a_foreign_job_is_accepted_and_counted_and_writes_no_record(
    async_store: AsyncLedger, raw: redis.Redis
) -> None:
    offered = Offered(dispatch_id="", generation="", client_id="")

    await RequestFilter(identity(), async_store)(offered.request)

    assert offered.answers == [ACCEPT]
    assert keyspace(raw) == {}
    of_nobody = f"usher:metrics:agent::box-1:{AGENT_NAME}"
    assert counts(raw, of_nobody) == {"accepts:not_dispatched_by_usher": 1}


async def test_a_job_that_livekit_does_not_assign_is_counted_and_given_back_at_once(
    dispatched: Dispatch,
    async_store: AsyncLedger,
    raw: redis.Redis,
    record: Callable[[], Dispatch],
) -> None:
    await RequestFilter(identity(), async_store)(Offered(times_out=True).request)

    assert counts(raw, COUNTERS) == {"accepts:claimed": 1, "assignment_timeouts": 1}
    given_back = record()
    assert (given_back.state, given_back.generation) == (State.QUEUED, 2)
    assert given_back.attempts[0].reason == "assignment_timeout"
    assert keyspace(raw)["usher:due"]["dsp_1"] <= given_back.updated_at_ms  # somebody looks now


async def test_without_the_ledger_a_job_is_left_to_another_agent_server(
    own_common: CommonSettings, own_redis: OwnRedis
) -> None:
    own_redis.stop()
    offered = Offered()
    async with AsyncLedger(own_common) as store:
        await RequestFilter(identity(), store)(offered.request)

    assert offered.answers == [REJECT]


async def test_claims_of_a_burst_go_over_few_connections(
    own_common: CommonSettings, own_redis: OwnRedis
) -> None:
    offers = [Offered(f"AJ_{number}") for number in range(40)]
    with redis.Redis.from_url(own_redis.url) as raw:
        async with AsyncLedger(own_common) as store:
            request_filter = RequestFilter(identity(slots=100), store)
            before = raw.info()["total_connections_received"]
            await asyncio.gather(*(request_filter(offered.request) for offered in offers))
            after = raw.info()["total_connections_received"]

    assert all(len(offered.answers) == 1 for offered in offers)
    assert after - before <= 5


async def test_with_redis_hung_no_offer_waits_for_those_before_it(
    own_common: CommonSettings, own_redis: OwnRedis
) -> None:
    offers = [Offered(f"AJ_{number}") for number in range(40)]
    async with AsyncLedger(own_common) as store:
        request_filter = RequestFilter(identity(slots=100), store)
        with own_redis.frozen():
            began = time.monotonic()
            await asyncio.gather(*(request_filter(offered.request) for offered in offers))
            took_s = time.monotonic() - began

    assert {answer for offered in offers for answer in offered.answers} == {REJECT}
    assert took_s < 4 * store.timeout_s + 1  # a claim, and the counters after it


async def test_jobs_that_are_being_accepted_take_their_slots(
    async_store: AsyncLedger, raw: redis.Redis
) -> None:
    request_filter = RequestFilter(identity(slots=2), async_store)
    foreign = [Offered(f"AJ_{n}", dispatch_id="", generation="") for n in range(3)]

    await asyncio.gather(*(request_filter(offered.request) for offered in foreign))

    assert sorted(answer for offered in foreign for answer in offered.answers) == [
        ACCEPT,
        ACCEPT,
        REJECT,
    ]
    assert request_filter.used_slots == 0


@pytest.mark.parametrize(
    ("offer", "decision", "reason"),
    [({}, "accept", "claimed"), ({"container": "box-2"}, "reject", "wrong_container")],
)
async def test_the_log_says_what_was_decided_and_why(
    offer: dict[str, str],
    decision: str,
    reason: str,
    dispatched: Dispatch,
    async_store: AsyncLedger,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "worker_agent.request_filter"):
        await RequestFilter(identity(), async_store)(Offered(**offer).request)

    (line,) = [line for line in caplog.records if line.name == "worker_agent.request_filter"]
    wanted = {
        "room": "room-1",
        "container": "box-1",
        "client_id": "acme",
        "request_type": "dispatch",
        "participant_count": 3,
        "decision": decision,
        "reason": reason,
        "dispatch_id": "dsp_1",
        "generation": 1,
        "job_id": "AJ_1",
    }
    assert {name: line.__dict__[name] for name in wanted} == wanted
