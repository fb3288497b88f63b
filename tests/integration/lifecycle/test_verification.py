"""Does verification believe LiveKit, and LiveKit alone, and what does it do without an agent?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
import redis

from dispatcher.domain import state_machine
from dispatcher.domain.metrics import BOUNDS, Window
from dispatcher.domain.models import Dispatch, State
from dispatcher.errors import UnknownDispatch
from dispatcher.ledger import dispatches
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.statistics import figures
from dispatcher.lifecycle import dispatching, verification
from dispatcher.lifecycle.services import Services
from tests.support.house import House, OpenServices, Request
from tests.support.scenario import Scenario
from tests.support.sockets import LossyProxy, listening
from tests.support.values import counts, keyspace

TakeAway = Callable[[], None]
pytestmark = pytest.mark.usefixtures("agent_server")


def claimed(store: Ledger, dispatch: Dispatch, **more: object) -> None:
    """As the request filter of an agent server claims it."""
    fields = {"job_id": "AJ_1", "agent_server_id": "server-1"}
    store.run(
        dispatches.advance(Advance(dispatch, state_machine.ACCEPTED, due_in_s=7, fields=fields))
    )


async def test_an_agent_that_livekit_lists_as_active_is_joined_with_its_time_to_join(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_VERIFY_TIMEOUT_S="15", USHER_OFFER_TIMEOUT_S="15")
    dispatch = scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    verifying = asyncio.create_task(verification.verify_dispatch(services, "dsp_1"))
    identity = await scenario.house.join_for(dispatch)

    assert await verifying is State.JOINED

    record = scenario.look()
    (listed,) = (await services.livekit(record).look(scenario.house.room)).agents
    assert record.agent_identity == identity
    assert record.joined_at_ms == listed.joined_at_ms
    time_to_join_ms = listed.joined_at_ms - record.requested_at_ms
    assert record.time_to_join_ms == time_to_join_ms
    assert 0 < time_to_join_ms < 20_000
    assert record.attempt.outcome == "joined"
    found = keyspace(scenario.raw)
    assert "usher:due" not in found
    assert list(found["usher:leases"]) == ["dsp_1"]
    (counted,) = (await services.ledger.run(figures(Window.ALL, ["acme"]))).clients
    spread = counted.histograms["time_to_join"]
    assert (counted.joined, spread.total, spread.sum) == (1, 1, time_to_join_ms)
    bucket = sum(bound < time_to_join_ms for bound in BOUNDS["time_to_join"])
    assert spread.counts[bucket] == 1


async def test_the_agents_own_report_makes_it_look_at_once(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_VERIFY_TIMEOUT_S="50", USHER_VERIFY_POLL_S="40")
    dispatch = scenario.request_dispatch(deadline_ms=60_000)
    await dispatching.dispatch_agent(services, "dsp_1")
    claimed(scenario.store, dispatch)
    verifying = asyncio.create_task(verification.verify_dispatch(services, "dsp_1"))
    identity = await scenario.house.join_for(dispatch)

    started_s = time.monotonic()
    scenario.run(
        dispatches.advance(
            Advance(dispatch, state_machine.AGENT_CONNECTED, fields={"agent_identity": identity})
        )
    )

    assert await verifying is State.JOINED
    assert time.monotonic() - started_s < 15


async def test_an_agents_report_alone_is_not_believed(
    services: Services, no_agent_server: TakeAway, scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    no_agent_server()
    claimed(scenario.store, dispatch)
    scenario.run(
        dispatches.advance(
            Advance(dispatch, state_machine.AGENT_CONNECTED, fields={"agent_identity": "liar"})
        )
    )

    assert await verification.verify_dispatch(services, "dsp_1") is State.WAITING

    assert "joined" not in [event.event for event in scenario.look().timeline]


@pytest.mark.parametrize(
    "attributes",
    [
        {"usher.dispatch_id": "dsp_1", "usher.generation": "9"},
        {"usher.dispatch_id": "dsp_other", "usher.generation": "1"},
        {"lk.agent_name": "another-agent"},
    ],
)
async def test_another_agent_in_the_room_is_not_taken_for_ours(
    attributes: dict[str, str],
    services: Services,
    request_dispatch: Request,
    house: House,
    no_agent_server: TakeAway,
) -> None:
    request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    no_agent_server()
    await house.join("somebody", attributes=attributes)

    assert await verification.verify_dispatch(services, "dsp_1") is State.WAITING


async def test_twenty_verifications_at_once_write_joined_once(
    services: Services, scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    await scenario.house.join_for(dispatch)

    await asyncio.gather(*(verification.verify_dispatch(services, "dsp_1") for _ in range(20)))

    assert [event.event for event in scenario.look().timeline].count("joined") == 1
    assert counts(scenario.raw, "usher:metrics:dispatch:acme")["joined"] == 1


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
    services_for: OpenServices, scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch()
    await dispatching.dispatch_agent(await services_for(), "dsp_1")
    await scenario.house.join_for(dispatch)
    refused = 0
    through = LossyProxy(
        target_port=int(scenario.house.server.url.rpartition(":")[2]), losing=b"", times=0
    )

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
    assert scenario.look().attempt.outcome == "joined"
