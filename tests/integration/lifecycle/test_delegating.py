"""What has become of a delegated session? On a real LiveKit server, with real participants."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from dispatcher.domain.models import PARTICIPANT_TOKEN_TTL_S, Dispatch, RememberedDispatch, State
from dispatcher.ledger import dispatches, restoring
from dispatcher.ledger.client import Ledger
from dispatcher.lifecycle import delegation
from dispatcher.lifecycle.dispatching import dispatch_agent
from dispatcher.lifecycle.services import Services
from tests.support.house import House, OpenServices
from tests.support.scenario import Scenario
from tests.support.values import AGENT_NAME, new_dispatch

Look = Callable[[], Dispatch]


@pytest.fixture
def delegated(store: Ledger, house: House, look: Look) -> Dispatch:
    """`dsp_1`, promised without Redis and written just now."""
    remembered = RememberedDispatch(
        dispatch_id="dsp_1",
        client_id="acme",
        room_name=house.room,
        agent_name=AGENT_NAME,
        generation=1,
        state=State.DELEGATED,
        container="",
        agent_metadata="",
        age_ms=3000,
        deadline_ms=20_000,
    )
    store.run(restoring.restore(remembered, by="test", retention_s=500))
    return look()


async def test_without_its_agent_it_is_dispatched_like_any_other(
    services: Services, house: House, delegated: Dispatch, look: Look
) -> None:
    assert await dispatch_agent(services, "dsp_1") is State.DISPATCHED

    assert await house.generations() == [("dsp_1", "1")]
    assert look().state is State.DISPATCHED


async def test_what_its_token_has_had_livekit_dispatch_is_not_asked_for_twice(
    services: Services, house: House, delegated: Dispatch
) -> None:
    by_token = await services.livekit(delegated).create_dispatch(delegated)
    await house.join("ann", agent=False)

    await dispatch_agent(services, "dsp_1")

    assert [item.id for item in await house.dispatches()] == [by_token]


@pytest.mark.parametrize(
    ("written_s_ago", "asked_again", "state"),
    [
        pytest.param(6, False, State.ENDED, id="for long enough"),
        pytest.param(0, False, State.DELEGATED, id="just now: she may be reloading her page"),
        pytest.param(6, True, State.DISPATCHED, id="and asks again"),
    ],
)
async def test_nobody_is_dispatched_to_a_room_that_its_person_has_left_while_redis_was_away(
    services: Services,
    delegated: Dispatch,
    written_s_ago: int,
    asked_again: bool,
    state: State,
    scenario: Scenario,
) -> None:
    """Her agent could not tell in time that it is over. LiveKit keeps the room for a while."""
    await services.livekit(delegated).create_dispatch(delegated)  # as her token did when she joined
    house = scenario.house
    await house.join("ann", agent=False)
    await house.everybody_leaves()
    written_at = delegated.updated_at_ms - written_s_ago * 1000
    scenario.raw.hset("usher:dispatch:dsp_1", "updated_at_ms", written_at)
    if asked_again:
        again = new_dispatch("dsp_2", room_name=house.room)
        created = scenario.store.run(dispatches.create(again, due_in_s=2.0, detail={}))
        assert created.dispatch_id == "dsp_1"

    await dispatch_agent(services, "dsp_1")

    record = scenario.look()
    assert (record.state, record.failure_reason) == (state, "")
    if state is State.ENDED:
        assert record.timeline[-1].detail["reason"] == "everybody has left while Redis was away"
    assert len(await house.dispatches()) == 1


async def test_its_agent_is_given_time_to_take_it_over(
    services: Services, house: House, delegated: Dispatch, look: Look
) -> None:
    await house.join_for(delegated)

    assert await dispatch_agent(services, "dsp_1") is State.DELEGATED

    assert await house.dispatches() == []
    assert look().state is State.DELEGATED


async def test_an_agent_that_never_takes_it_over_does_not_hold_it_up_for_ever(
    services: Services, house: House, delegated: Dispatch, raw: redis.Redis
) -> None:
    await house.join_for(delegated)
    long_ago = delegated.updated_at_ms - int(delegation.ADOPTION_S * 1000) - 1
    raw.hset("usher:dispatch:dsp_1", "updated_at_ms", long_ago)

    assert await dispatch_agent(services, "dsp_1") is State.DISPATCHED


async def test_an_agent_without_our_filter_counts_when_it_is_there(
    services_for: OpenServices, house: House, delegated: Dispatch, look: Look
) -> None:
    services = await services_for(USHER_UNFENCED_AGENTS=AGENT_NAME)
    await house.join("agent-1", attributes={"lk.agent_name": AGENT_NAME})

    await dispatch_agent(services, "dsp_1")

    assert (look().state, look().agent_identity) == (State.JOINED, "agent-1")


@pytest.mark.parametrize(("person", "state"), [(False, State.ENDED), (True, State.DISPATCHED)])
async def test_nobody_is_dispatched_to_an_empty_room_whose_token_has_expired(
    services: Services, delegated: Dispatch, person: bool, state: State, scenario: Scenario
) -> None:
    expired = delegated.requested_at_ms - PARTICIPANT_TOKEN_TTL_S * 1000
    scenario.raw.hset("usher:dispatch:dsp_1", "requested_at_ms", expired)
    written_at = delegated.updated_at_ms - int(delegation.STILL_TO_JOIN_S * 1000) - 1
    scenario.raw.hset("usher:dispatch:dsp_1", "updated_at_ms", written_at)
    if person:
        await scenario.house.join("ann", agent=False)

    await dispatch_agent(services, "dsp_1")

    assert scenario.look().state is state


async def test_without_an_agent_server_it_waits(
    services: Services, delegated: Dispatch, no_agent_server: Callable[[], None], store: Ledger
) -> None:
    no_agent_server()

    assert await dispatch_agent(services, "dsp_1") is State.WAITING

    waiting = store.run(dispatches.read("dsp_1"))
    assert waiting is not None
    assert (waiting.generation, waiting.failure_reason) == (2, "no_agent_online")
