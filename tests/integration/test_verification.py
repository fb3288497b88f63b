"""Does verification believe LiveKit, and LiveKit alone, and what does it do without an agent?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
import redis

from dispatcher import dispatching, ledger, models, verification
from dispatcher.errors import UnknownDispatch
from dispatcher.models import Dispatch, State
from dispatcher.runtime import Services
from dispatcher.store import Ledger
from tests.house import House, OpenServices, Request
from tests.sockets import LossyProxy, listening
from tests.support import a_server, keyspace

Look = Callable[[], Dispatch]


def claimed(store: Ledger, dispatch: Dispatch, **more: object) -> None:
    """As the request filter of an agent server claims it."""
    fields = {"job_id": "AJ_1", "agent_server_id": "server-1"}
    store.run(ledger.advance(dispatch, models.ACCEPTED, due_in_s=7, fields=fields))


async def test_an_agent_that_livekit_lists_as_active_is_joined_with_its_time_to_join(
    services: Services, request_dispatch: Request, look: Look, house: House, raw: redis.Redis
) -> None:
    dispatch = request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    verifying = asyncio.create_task(verification.verify_dispatch(services, "dsp_1"))
    identity = await house.join_for(dispatch)

    assert await verifying is State.JOINED

    record = look()
    (listed,) = await services.livekit(record).list_agents(house.room)
    assert record.agent_identity == identity
    assert record.joined_at_ms == listed.joined_at_ms
    time_to_join_ms = listed.joined_at_ms - record.requested_at_ms
    assert record.time_to_join_ms == time_to_join_ms
    assert 0 < time_to_join_ms < 5000
    assert record.attempt.outcome == "joined"
    found = keyspace(raw)
    assert "usher:due" not in found
    metrics = found["usher:metrics:dispatch:acme"]
    assert metrics["joined"] == metrics["time_to_join_ms_count"] == "1"
    assert metrics["time_to_join_ms_sum"] == str(time_to_join_ms)
    buckets = {
        int(name.rpartition("_")[2]) for name in metrics if name.startswith("time_to_join_ms_le")
    }
    assert buckets == {b for b in ledger.TIME_TO_JOIN_BUCKETS_MS if time_to_join_ms <= b}


async def test_the_agents_own_report_makes_it_look_at_once(
    services_for: OpenServices, request_dispatch: Request, look: Look, store: Ledger, house: House
) -> None:
    services = await services_for(USHER_VERIFY_TIMEOUT_S="9", USHER_VERIFY_POLL_S="8")
    dispatch = request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    claimed(store, dispatch)
    verifying = asyncio.create_task(verification.verify_dispatch(services, "dsp_1"))
    identity = await house.join_for(dispatch)

    started_s = time.monotonic()
    store.run(ledger.advance(dispatch, models.AGENT_CONNECTED, fields={"agent_identity": identity}))

    assert await verifying is State.JOINED
    assert time.monotonic() - started_s < 4


async def test_an_agents_report_alone_is_not_believed(
    services: Services, request_dispatch: Request, look: Look, store: Ledger
) -> None:
    dispatch = request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    claimed(store, dispatch)
    store.run(ledger.advance(dispatch, models.AGENT_CONNECTED, fields={"agent_identity": "liar"}))

    assert await verification.verify_dispatch(services, "dsp_1") is State.WAITING

    assert "joined" not in [event.event for event in look().timeline]


@pytest.mark.parametrize(
    "attributes",
    [
        {"usher.dispatch_id": "dsp_1", "usher.generation": "9"},
        {"usher.dispatch_id": "dsp_other", "usher.generation": "1"},
        {"lk.agent_name": "another-agent"},
    ],
)
async def test_another_agent_in_the_room_is_not_taken_for_ours(
    attributes: dict[str, str], services: Services, request_dispatch: Request, house: House
) -> None:
    request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    await house.join("somebody", attributes=attributes)

    assert await verification.verify_dispatch(services, "dsp_1") is State.WAITING


async def test_without_an_agent_server_the_dispatch_is_taken_back_and_waits(
    services: Services, request_dispatch: Request, look: Look, raw: redis.Redis, house: House
) -> None:
    request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")

    assert await verification.verify_dispatch(services, "dsp_1") is State.WAITING

    record = look()
    assert record.generation == 2
    assert record.failure_reason == "no_agent_online"
    assert "session-agent-rag" in record.failure_message
    assert (record.attempts[0].outcome, record.attempts[0].reason) == (
        "given_up",
        "no_agent_online",
    )
    assert await house.dispatches() == []
    assert list(keyspace(raw)["usher:due"]) == ["dsp_1"]


@pytest.mark.parametrize(
    ("report", "state"),
    [({"used_slots": 1}, State.QUEUED), ({"used_slots": 4}, State.WAITING)],
    ids=["free", "full"],
)
async def test_without_an_agent_it_tries_again_at_once_only_where_there_is_a_free_slot(
    report: dict[str, int],
    state: State,
    services: Services,
    request_dispatch: Request,
    look: Look,
    store: Ledger,
) -> None:
    store.run(ledger.report_agent_server(a_server(**report), ttl_s=60))
    request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")

    assert await verification.verify_dispatch(services, "dsp_1") is state

    assert look().generation == 2


async def test_when_the_time_is_up_it_fails_before_the_deadline_and_leaves_nothing_behind(
    services_for: OpenServices,
    request_dispatch: Request,
    look: Look,
    raw: redis.Redis,
    house: House,
) -> None:
    services = await services_for(USHER_VERIFY_TIMEOUT_S="5")
    request_dispatch(deadline_ms=3000)
    await dispatching.dispatch_agent(services, "dsp_1")

    assert await verification.verify_dispatch(services, "dsp_1") is State.FAILED

    record = look()
    assert record.failure_reason == "no_agent_online"
    assert record.updated_at_ms < record.deadline_at_ms
    assert await house.dispatches() == []
    found = keyspace(raw)
    assert "usher:due" not in found
    assert not [key for key in found if key.startswith("usher:live:")]


async def test_twenty_verifications_at_once_write_joined_once(
    services: Services, request_dispatch: Request, look: Look, house: House, raw: redis.Redis
) -> None:
    dispatch = request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    await house.join_for(dispatch)

    await asyncio.gather(*(verification.verify_dispatch(services, "dsp_1") for _ in range(20)))

    assert [event.event for event in look().timeline].count("joined") == 1
    assert keyspace(raw)["usher:metrics:dispatch:acme"]["joined"] == "1"


async def test_twenty_verifications_at_once_give_one_attempt_up(
    services: Services, request_dispatch: Request, look: Look
) -> None:
    request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")

    states = await asyncio.gather(
        *(verification.verify_dispatch(services, "dsp_1") for _ in range(20))
    )

    assert set(states) == {State.WAITING}
    assert look().generation == 2
    assert [event.event for event in look().timeline].count("waiting") == 1


async def test_whoever_comes_too_late_to_give_up_leaves_the_joined_agents_dispatch_alone(
    services: Services, request_dispatch: Request, look: Look, store: Ledger, house: House
) -> None:
    """Two verifications: one has seen no agent, the other sees it and writes joined first."""
    request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    seen_by_the_late_one = look()
    await house.join_for(seen_by_the_late_one)
    assert await verification.verify_dispatch(services, "dsp_1") is State.JOINED

    assert await verification._no_join(services, seen_by_the_late_one) is State.JOINED

    assert await house.generations() == [("dsp_1", "1")]


@pytest.mark.parametrize("state", [State.QUEUED, State.JOINED, State.FAILED])
async def test_there_is_nothing_to_verify_in_a_state_that_is_not_in_flight(
    state: State, services: Services, request_dispatch: Request, raw: redis.Redis
) -> None:
    request_dispatch()
    raw.hset("usher:dispatch:dsp_1", "state", state)
    before = keyspace(raw)

    assert await verification.verify_dispatch(services, "dsp_1") is state

    assert keyspace(raw) == before


async def test_an_unknown_dispatch_cannot_be_verified(services: Services) -> None:
    with pytest.raises(UnknownDispatch):
        await verification.verify_dispatch(services, "dsp_none")


async def test_it_sees_the_agent_although_livekit_was_away_for_a_while(
    services_for: OpenServices, request_dispatch: Request, look: Look, house: House
) -> None:
    dispatch = request_dispatch()
    await dispatching.dispatch_agent(await services_for(), "dsp_1")
    await house.join_for(dispatch)
    refused = 0
    through = LossyProxy(target_port=int(house.server.url.rpartition(":")[2]), losing=b"", times=0)

    async def away_twice(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        if refused < 2:
            refused += 1
        else:
            await through(reader, writer)

    async with listening(away_twice) as port:
        services = await services_for(
            LIVEKIT_URL=f"ws://127.0.0.1:{port}", USHER_VERIFY_POLL_S="0.1"
        )
        assert await verification.verify_dispatch(services, "dsp_1") is State.JOINED

    assert refused == 2
    assert look().attempt.outcome == "joined"
