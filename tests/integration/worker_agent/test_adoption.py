"""May an agent that LiveKit has brought by a token, or whose record is lost, stay?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from dispatcher.domain import state_machine
from dispatcher.domain.metrics import AgentCounts
from dispatcher.domain.models import Dispatch, State
from dispatcher.ledger import dispatches
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.client import Ledger
from dispatcher.settings import CommonSettings
from tests.support.offers import ACCEPT, REJECT, REJECT_EVERYWHERE, Offered, identity
from tests.support.ownredis import OwnRedis
from tests.support.values import AGENT_NAME, counts, new_dispatch
from worker_agent.adoption import Taker, adopt
from worker_agent.decisions import Decision, Offer, Reason, reject
from worker_agent.metrics import ADOPTED as ADOPTIONS
from worker_agent.request_filter import RequestFilter

COUNTERS = f"usher:metrics:agent:acme:box-1:{AGENT_NAME}"
ADOPTED = Decision(accept=True, reason=Reason.ADOPTED)

Read = Callable[[], Dispatch]


@pytest.fixture
def record(store: Ledger) -> Read:
    def read() -> Dispatch:
        dispatch = store.run(dispatches.read("dsp_1"))
        assert dispatch is not None
        return dispatch

    return read


@pytest.fixture
def queued(store: Ledger, record: Read) -> Dispatch:
    store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))
    return record()


def offer(job_id: str = "AJ_1", *, generation: int = 1) -> Offer:
    return Offer(
        job_id=job_id,
        room_name="room-1",
        agent_name=AGENT_NAME,
        participant_count=1,
        request_type="delegated",
        dispatch_id="dsp_1",
        generation=generation,
        client_id="acme",
        agent_metadata="{}",
        requested_at_ms=1,
    )


async def ask(store: AsyncLedger, offered: Offer, agent_identity: str = "") -> Decision:
    return await adopt(
        store,
        offered,
        Taker(container="box-1", agent_server_id="server-1", agent_identity=agent_identity),
        counts=AgentCounts(key=COUNTERS, increments=ADOPTIONS),
    )


async def test_an_agent_writes_the_record_that_redis_does_not_have(
    async_store: AsyncLedger, record: Read
) -> None:
    assert await ask(async_store, offer(generation=4), "agent-AJ_1") == ADOPTED

    found = record()
    assert (found.state, found.generation, found.job_id) == (State.ACCEPTED, 4, "AJ_1")
    assert (found.agent_identity, found.agent_metadata) == ("agent-AJ_1", "{}")
    assert found.agent_container == "box-1"
    assert abs(found.requested_at_ms - 1) < 1000  # by the agent's clock and Redis's


async def test_asking_again_changes_nothing(async_store: AsyncLedger, record: Read) -> None:
    await ask(async_store, offer())
    before = record()

    assert await ask(async_store, offer()) == ADOPTED

    assert record().timeline == before.timeline


@pytest.mark.usefixtures("queued")
async def test_a_dispatch_that_nobody_serves_yet_is_taken_over(
    async_store: AsyncLedger, record: Read
) -> None:
    assert await ask(async_store, offer()) == ADOPTED

    assert (record().state, record().job_id) == (State.ACCEPTED, "AJ_1")
    assert record().timeline[-1].event == "adopted"


@pytest.mark.usefixtures("queued")
async def test_of_two_agents_only_the_first_may_stay(async_store: AsyncLedger) -> None:
    assert await ask(async_store, offer("AJ_1")) == ADOPTED

    assert await ask(async_store, offer("AJ_2")) == reject(Reason.SECOND_JOB)


async def test_an_agent_of_an_older_generation_must_leave(
    async_store: AsyncLedger, store: Ledger, queued: Dispatch
) -> None:
    store.run(dispatches.advance(Advance(queued, state_machine.WAIT, due_in_s=1)))

    assert await ask(async_store, offer()) == reject(Reason.STALE)


async def test_an_agent_for_a_dispatch_that_has_ended_must_leave(
    async_store: AsyncLedger, store: Ledger, queued: Dispatch
) -> None:
    store.run(dispatches.advance(Advance(queued, state_machine.FAILED)))

    assert await ask(async_store, offer()) == reject(Reason.NOT_WANTED)


async def test_an_agent_whose_room_another_dispatch_serves_must_leave_and_the_record_says_so(
    async_store: AsyncLedger, store: Ledger, record: Read
) -> None:
    store.run(dispatches.create(new_dispatch("dsp_2"), due_in_s=2, detail={}))

    assert await ask(async_store, offer()) == reject(Reason.OCCUPIED)

    assert (record().state, record().failure_reason) == (State.CANCELLED, "superseded")


async def test_the_filter_takes_a_delegated_job_and_writes_its_record(
    async_store: AsyncLedger, record: Read, raw: redis.Redis
) -> None:
    offered = Offered(request_type="delegated")

    await RequestFilter(identity(), async_store)(offered.request)

    assert offered.answers == [ACCEPT]
    assert (record().state, record().job_id) == (State.ACCEPTED, "AJ_1")
    assert counts(raw, COUNTERS) == {"accepts:adopted": 1, "adoptions": 1}


async def test_the_filter_refuses_a_delegated_job_whose_dispatch_has_its_agent(
    async_store: AsyncLedger, queued: Dispatch, store: Ledger
) -> None:
    store.run(dispatches.advance(Advance(queued, state_machine.ADOPTED, fields={"job_id": "AJ_0"})))
    offered = Offered(request_type="delegated")

    await RequestFilter(identity(), async_store)(offered.request)

    assert offered.answers == [REJECT_EVERYWHERE]


@pytest.mark.parametrize("away", ["down", "hung"])
async def test_without_redis_the_filter_takes_a_delegated_job_and_no_other(
    own_redis: OwnRedis, own_common: CommonSettings, away: str
) -> None:
    async with AsyncLedger(own_common) as store:
        asked = RequestFilter(identity(), store)
        delegated, ordinary = Offered("AJ_1", request_type="delegated"), Offered("AJ_2")
        if away == "down":
            own_redis.stop()
            await asked(delegated.request)
            await asked(ordinary.request)
        else:
            with own_redis.frozen():
                await asked(delegated.request)
                await asked(ordinary.request)

    assert delegated.answers == [ACCEPT]
    assert ordinary.answers == [REJECT]
