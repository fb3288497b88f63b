"""May a dispatch be sent again by hand, and does a refusal say why not?"""

from __future__ import annotations

import pytest
import redis

from dispatcher.domain import state_machine
from dispatcher.domain.models import PENDING, Dispatch, State
from dispatcher.errors import RedispatchRefused, UnknownDispatch
from dispatcher.ledger import dispatches
from dispatcher.ledger.advance import Advance, Times
from dispatcher.lifecycle import dispatching, verification
from dispatcher.lifecycle.redispatching import redispatch
from dispatcher.lifecycle.services import Services
from tests.support.house import House, OpenServices, Request
from tests.support.scenario import Scenario
from tests.support.sockets import listening, never_answering
from tests.support.values import keyspace


async def refusal(services: Services, raw: redis.Redis) -> str:
    """Why `dsp_1` may not be sent again; the refusal writes nothing."""
    before = keyspace(raw)
    with pytest.raises(RedispatchRefused) as caught:
        await redispatch(services, "dsp_1")
    assert keyspace(raw) == before
    return str(caught.value)


async def joined(services: Services, dispatch: Dispatch, house: House) -> str:
    """Have the dispatch's agent join; returns its identity."""
    await dispatching.dispatch_agent(services, "dsp_1")
    identity = await house.join_for(dispatch)
    assert await verification.verify_dispatch(services, "dsp_1") is State.JOINED
    return identity


@pytest.mark.parametrize("state", sorted(PENDING))
async def test_a_pending_dispatch_goes_on_by_itself(
    state: State, services: Services, request_dispatch: Request, raw: redis.Redis
) -> None:
    request_dispatch()
    raw.hset("usher:dispatch:dsp_1", "state", state)

    message = await refusal(services, raw)

    assert f"dsp_1 is {state} already" in message
    assert "generation 1" in message


async def test_a_joined_dispatch_whose_agent_is_there_is_not_doubled(
    services: Services, scenario: Scenario
) -> None:
    identity = await joined(services, scenario.request_dispatch(), scenario.house)

    message = await refusal(services, scenario.raw)

    assert f"dsp_1 already has its agent {identity}" in message
    assert scenario.house.room in message


async def test_a_joined_dispatch_whose_agent_is_gone_starts_a_new_generation(
    services: Services, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(), scenario.house)
    await scenario.house.everybody_leaves()

    again = await redispatch(services, "dsp_1")

    assert (again.state, again.generation) == (State.QUEUED, 2)
    assert again == scenario.look() or again.timeline == scenario.look().timeline
    assert again.timeline[-1].detail == {"by": "hand"}


async def test_a_joined_dispatch_is_not_sent_again_while_livekit_cannot_be_asked(
    services: Services, services_for: OpenServices, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(), scenario.house)
    async with listening(never_answering) as port:
        pass
    blind = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{port}")

    message = await refusal(blind, scenario.raw)

    assert "cannot see whether room" in message
    assert "try again when LiveKit answers" in message


async def test_a_room_that_another_dispatch_serves_is_left_to_it(
    services: Services, scenario: Scenario
) -> None:
    scenario.run(
        dispatches.advance(
            Advance(scenario.request_dispatch(), state_machine.FAILED, times=Times(retention_s=60))
        )
    )
    scenario.request_dispatch("dsp_2")

    message = await refusal(services, scenario.raw)

    assert "is served by dispatch dsp_2 now" in message


@pytest.mark.parametrize("state", [State.FAILED, State.ENDED, State.CANCELLED])
async def test_a_dispatch_that_is_over_can_be_sent_again_with_a_new_deadline(
    state: State, services: Services, scenario: Scenario
) -> None:
    scenario.request_dispatch(deadline_ms=1)
    scenario.raw.hset("usher:dispatch:dsp_1", "state", state)
    scenario.raw.delete(*scenario.raw.scan_iter("usher:live:*"))

    again = await redispatch(services, "dsp_1")
    assert (again.state, again.generation) == (State.QUEUED, 2)
    assert 19 < again.remaining_s <= 20

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED
    assert await scenario.house.generations() == [("dsp_1", "2")]


async def test_an_unknown_dispatch_cannot_be_sent_again(services: Services) -> None:
    with pytest.raises(UnknownDispatch, match="dsp_none"):
        await redispatch(services, "dsp_none")
