"""Is a cancelled dispatch cancelled for good, and is nothing of it left in its room?"""

from __future__ import annotations

import time

import pytest
import redis

from dispatcher.domain.models import PENDING, TERMINAL, Dispatch, State
from dispatcher.domain.state_machine import (
    ACCEPTED,
    ADOPTED,
    DISPATCH_CREATED,
    DISPATCH_STARTED,
    JOINED,
    REDISPATCH,
)
from dispatcher.ledger import dispatches, endings
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.client import Ledger
from dispatcher.lifecycle import dispatching, sweeping, verification
from dispatcher.lifecycle.cleanup import SETTLED_S, clear_away
from dispatcher.lifecycle.redispatching import redispatch_joined
from dispatcher.lifecycle.services import Services
from tests.support.house import OpenServices
from tests.support.scenario import Scenario
from tests.support.sockets import listening, never_answering
from tests.support.values import AGENT_NAME, counts, keyspace

RECORD = "usher:dispatch:dsp_1"


def cancel(store: Ledger, dispatch: Dispatch) -> bool:
    return store.run(endings.cancel(dispatch, retention_s=60)).moved


def cancel_on_its_way(store: Ledger, dispatch: Dispatch) -> None:
    """A worker has begun with it, and may have asked LiveKit for its agent."""
    assert store.run(dispatches.advance(Advance(dispatch, DISPATCH_STARTED, due_in_s=12))).moved
    assert cancel(store, dispatch)


def age(raw: redis.Redis, by_s: float) -> None:
    """Have the record been cancelled so much earlier."""
    raw.hincrby(RECORD, "updated_at_ms", -int(by_s * 1000))


@pytest.mark.parametrize("state", sorted(PENDING | {State.JOINED}))
@pytest.mark.parametrize("generation", [1, 3])
def test_cancelling_wins_whatever_the_dispatch_is_doing(
    generation: int, state: State, scenario: Scenario
) -> None:
    seen = scenario.request_dispatch()
    scenario.raw.hset(RECORD, mapping={"state": state, "generation": generation})
    lists = {
        State.WAITING: ("usher:waiting",),
        State.JOINED: ("usher:leases",),
        State.LEAVING: ("usher:leases",),
    }.get(state, ())
    for name in lists:
        scenario.raw.zadd(name, {"dsp_1": 1})
    before = keyspace(scenario.raw)

    assert cancel(scenario.store, seen)  # as it was seen, in its first generation

    found = keyspace(scenario.raw)
    after = scenario.look()
    assert (after.state, after.generation) == (State.CANCELLED, generation)
    # LiveKit has never been asked for what no worker has begun with.
    clears = (state, generation) != (State.QUEUED, 1)
    assert (after.failure_reason, after.clearing) == ("cancelled_by_client", clears)
    assert (after.attempt.outcome, after.attempt.reason) == ("cancelled", "cancelled_by_client")
    assert after.timeline[-1].event == "cancelled_by_client"
    assert set(before) - set(found) == {
        *(() if clears else ("usher:due",)),
        *lists,
        "usher:sessions:acme",
        f"usher:live:acme:{AGENT_NAME}:{seen.room_name}",
    }
    told = {"verify"} if clears else set()
    assert set(found) - set(before) == {f"{RECORD}:attempts", *told}
    if clears:
        assert found["usher:due"] == {"dsp_1": after.updated_at_ms + 2000}
    assert counts(scenario.raw, "usher:metrics:dispatch:acme")["cancelled"] == 1
    for key in (RECORD, f"{RECORD}:attempts", f"{RECORD}:timeline"):
        assert found[key][1] == "expires"
    for late in (DISPATCH_STARTED, DISPATCH_CREATED, ACCEPTED, ADOPTED, JOINED):
        assert not scenario.run(dispatches.advance(Advance(after, late))).applied
    assert keyspace(scenario.raw) == found


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_one_that_has_ended_stays_as_it_is(state: State, scenario: Scenario) -> None:
    dispatch = scenario.request_dispatch()
    scenario.raw.hset(RECORD, "state", state)
    before = keyspace(scenario.raw)

    assert not cancel(scenario.store, dispatch)
    assert keyspace(scenario.raw) == before


async def test_its_agent_and_its_livekit_dispatch_are_taken_away_and_nobody_elses(
    services: Services, scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    await scenario.house.join_for(dispatch)
    await scenario.house.join("ann", agent=False)
    await scenario.house.join("agent-other", attributes={"usher.dispatch_id": "dsp_2"})
    newer = {"usher.dispatch_id": "dsp_1", "usher.generation": "2"}  # it is just being sent again
    await scenario.house.join("agent-newer", attributes=newer)
    cancel(scenario.store, dispatch)

    assert await clear_away(services, "dsp_1") is State.CANCELLED

    agents = await services.livekit(dispatch).look(scenario.house.room)
    assert {agent.identity for agent in agents.agents} == {"agent-other", "agent-newer"}
    assert agents.people == 1
    assert await services.livekit(dispatch).list_dispatch(scenario.house.room) == []
    # What LiveKit was being asked for meanwhile is looked for once more.
    assert scenario.look().clearing
    due_in_ms = int(scenario.raw.zscore("usher:due", "dsp_1") or 0) - scenario.look().updated_at_ms
    assert due_in_ms == pytest.approx(SETTLED_S * 1000, abs=5000)
    late = await scenario.house.join_for(dispatch)
    age(scenario.raw, SETTLED_S)

    await clear_away(services, "dsp_1")

    left = [
        agent.identity
        for agent in (await services.livekit(dispatch).look(scenario.house.room)).agents
    ]
    assert late not in left
    assert "usher:due" not in keyspace(scenario.raw)
    assert not scenario.look().clearing


async def test_the_sweeper_has_it_done_when_the_message_was_lost(
    services: Services, scenario: Scenario
) -> None:
    cancel_on_its_way(scenario.store, scenario.request_dispatch())
    scenario.raw.zadd("usher:due", {"dsp_1": 1})

    (wake_up,) = await sweeping.sweep(services)

    assert wake_up.clearing
    age(scenario.raw, SETTLED_S)
    await clear_away(services, "dsp_1")
    assert await sweeping.sweep(services) == []


async def test_an_agent_without_a_fence_goes_by_its_name_unless_the_room_is_anothers(
    services: Services, scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch()
    cancel_on_its_way(scenario.store, dispatch)
    named = {"lk.agent_name": AGENT_NAME}
    await scenario.house.join("agent-first", attributes=named)
    await clear_away(services, "dsp_1")
    assert (await services.livekit(dispatch).look(scenario.house.room)).agents == ()

    scenario.request_dispatch("dsp_2")
    await scenario.house.join("agent-second", attributes=named)
    await clear_away(services, "dsp_1")

    (agent,) = (await services.livekit(dispatch).look(scenario.house.room)).agents
    assert agent.identity == "agent-second"


async def test_one_that_has_been_sent_again_is_left_alone(
    services: Services, scenario: Scenario
) -> None:
    cancel_on_its_way(scenario.store, scenario.request_dispatch())
    age(scenario.raw, SETTLED_S)
    cancelled = scenario.look()
    scenario.run(
        dispatches.advance(
            Advance(cancelled, REDISPATCH, due_in_s=2.0, times=Times(deadline_in_s=20.0))
        )
    )
    await dispatching.dispatch_agent(services, "dsp_1")
    await scenario.house.join_for(scenario.look())
    before = keyspace(scenario.raw)

    assert await clear_away(services, "dsp_1") is State.DISPATCHED
    assert scenario.run(endings.cleared(cancelled)) == 0

    assert keyspace(scenario.raw) == before
    assert not scenario.look().clearing
    assert len((await services.livekit(cancelled).look(scenario.house.room)).agents) == 1


async def test_while_livekit_hangs_it_stays_due(
    services_for: OpenServices, scenario: Scenario
) -> None:
    cancel_on_its_way(scenario.store, scenario.request_dispatch())
    age(scenario.raw, SETTLED_S)
    async with listening(never_answering) as port:
        services = await services_for(
            LIVEKIT_URL=f"ws://127.0.0.1:{port}", USHER_LIVEKIT_TIMEOUT_S="0.2"
        )

        assert await clear_away(services, "dsp_1") is State.CANCELLED
        assert list(keyspace(scenario.raw)["usher:due"]) == ["dsp_1"]

        age(scenario.raw, 600)
        await clear_away(services, "dsp_1")
    assert "usher:due" not in keyspace(scenario.raw)


async def test_a_redispatch_by_http_that_is_refused_says_so_in_the_timeline(
    services: Services, scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    identity = await scenario.house.join_for(dispatch)
    await verification.verify_dispatch(services, "dsp_1")

    assert await redispatch_joined(services, "dsp_1") is State.JOINED

    refused = scenario.look().timeline[-1]
    assert refused.event == "redispatch_refused"
    assert identity in refused.detail["message"]


async def test_while_livekit_is_away_it_is_asked_ever_more_seldom(
    services_for: OpenServices, scenario: Scenario
) -> None:
    async with listening(never_answering) as port:
        services = await services_for(
            LIVEKIT_URL=f"ws://127.0.0.1:{port}", USHER_LIVEKIT_TIMEOUT_S="0.05"
        )
        cancel_on_its_way(scenario.store, scenario.request_dispatch())
        for aged_s, pause_s in ((0, 2), (100, 25)):
            age(scenario.raw, aged_s)

            await clear_away(services, "dsp_1")

            due_in_s = float(scenario.raw.zscore("usher:due", "dsp_1") or 0) / 1000 - time.time()
            assert due_in_s == pytest.approx(pause_s, abs=1.5)
            assert scenario.raw.hget(RECORD, "clearing") == "1"
