"""What becomes of agents that report nothing themselves? Real rooms, people and agents."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from dispatcher.domain.models import Dispatch, State
from dispatcher.lifecycle import dispatching, verification
from dispatcher.lifecycle.services import Services
from dispatcher.lifecycle.supervision import supervise
from tests.support.house import House, OpenServices, Request
from tests.support.scenario import Scenario
from tests.support.values import AGENT_NAME, counts, keyspace

Look = Callable[[], Dispatch]
NAMED = {"lk.agent_name": AGENT_NAME}  # what livekit-agents says of every agent


@pytest.fixture
async def joined(services_for: OpenServices, request_dispatch: Request, house: House) -> Services:
    """`dsp_1` has joined with the agent `first`, which is nobody's but LiveKit's to know."""
    services = await services_for(USHER_UNFENCED_AGENTS=AGENT_NAME, USHER_ABANDON_AFTER_S="0.2")
    request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    await house.join("first", attributes=NAMED)
    assert await verification.verify_dispatch(services, "dsp_1") is State.JOINED
    return services


async def inside(house: House, services: Services, dispatch: Dispatch) -> list[str]:
    return [a.identity for a in (await services.livekit(dispatch).look(house.room)).agents]


async def test_a_second_one_is_put_out_and_counted_and_the_first_stays(
    joined: Services, scenario: Scenario
) -> None:
    await scenario.house.join("person", agent=False)
    await scenario.house.join("second", attributes=NAMED)

    assert await supervise(joined, "dsp_1") is State.JOINED

    record = scenario.look()
    assert await inside(scenario.house, joined, record) == ["first"]
    assert (record.agent_identity, record.person_seen) == ("first", True)
    assert (record.timeline[-1].event, record.timeline[-1].detail) == (
        "surplus_agent",
        {"agent_identity": "second"},
    )
    found = keyspace(scenario.raw)
    assert counts(scenario.raw, "usher:metrics:dispatch:acme")["surplus_agents"] == 1
    assert list(found["usher:leases"]) == ["dsp_1"]  # it will be looked at again


async def test_when_the_first_has_gone_the_second_is_kept(
    joined: Services, look: Look, house: House
) -> None:
    await house.everybody_leaves()
    await house.join("person", agent=False)
    await house.join("second", attributes=NAMED)

    assert await supervise(joined, "dsp_1") is State.JOINED

    record = look()
    assert await inside(house, joined, record) == ["second"]
    assert (record.agent_identity, record.generation) == ("second", 1)
    assert record.timeline[-1].event == "agent_adopted"


async def test_it_stays_for_a_person_who_may_come_back_and_not_for_one_who_never_came(
    joined: Services, scenario: Scenario
) -> None:
    alone_since_ms = scenario.look().read_at_ms - 20_000
    scenario.raw.hset(
        "usher:dispatch:dsp_1", mapping={"person_seen": "1", "alone_since_ms": alone_since_ms}
    )
    assert await supervise(joined, "dsp_1") is State.JOINED

    scenario.raw.hset("usher:dispatch:dsp_1", "alone_since_ms", 1)
    scenario.raw.hdel("usher:dispatch:dsp_1", "person_seen")
    assert await supervise(joined, "dsp_1") is State.CANCELLED
    assert await inside(scenario.house, joined, scenario.look()) == []
    assert scenario.look().failure_reason == "nobody_came"


async def test_when_all_have_gone_the_next_one_is_dispatched(
    joined: Services, look: Look, house: House
) -> None:
    await house.everybody_leaves()
    await house.join("person", agent=False)

    assert await supervise(joined, "dsp_1") is State.QUEUED
    assert look().generation == 2
