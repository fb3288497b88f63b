"""What becomes of a session whose agent has fallen silent? Real rooms, people and agents."""

from __future__ import annotations

import pytest
import redis
from livekit import api

from dispatcher.domain import state_machine
from dispatcher.domain.metrics import Window
from dispatcher.domain.models import Dispatch, State
from dispatcher.errors import UnknownDispatch
from dispatcher.explain.incidents import incidents
from dispatcher.ledger import dispatches, leases, reports
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.statistics import figures
from dispatcher.lifecycle import dispatching, supervision, verification
from dispatcher.lifecycle.services import Services
from dispatcher.lifecycle.supervision import LOOK_AGAIN_S, supervise
from tests.support.house import House, OpenServices
from tests.support.scenario import Scenario
from tests.support.sockets import listening, never_answering
from tests.support.values import AGENT_NAME, TIMINGS, counts, keyspace, new_dispatch

RECORD = "usher:dispatch:dsp_1"
pytestmark = pytest.mark.usefixtures("agent_server")


async def joined(services: Services, dispatch: Dispatch, house: House) -> str:
    """Have the agent of the dispatch's generation join; returns its identity."""
    await dispatching.dispatch_agent(services, dispatch.dispatch_id)
    identity = await house.join_for(dispatch)
    assert await verification.verify_dispatch(services, dispatch.dispatch_id) is State.JOINED
    return identity


async def inside(house: House) -> set[str]:
    """Whom LiveKit lists in the room."""
    listed = await house.lk.room.list_participants(api.ListParticipantsRequest(room=house.room))
    return {participant.identity for participant in listed.participants}


def fall_silent(raw: redis.Redis) -> None:
    """The lease has run out, and nothing was heard of the agent for long."""
    raw.zadd("usher:leases", {"dsp_1": 1}, xx=True)
    raw.hset("usher:dispatch:dsp_1", "alive_till_ms", 1)


async def test_with_a_person_there_a_silent_agent_is_replaced_and_put_out(
    services: Services, scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch(deadline_ms=60_000)
    identity = await joined(services, dispatch, scenario.house)
    await scenario.house.join("person", agent=False)
    fall_silent(scenario.raw)

    assert await supervise(services, "dsp_1") is State.QUEUED

    record = scenario.look()
    assert (record.state, record.generation, record.losses) == (State.QUEUED, 2, 1)
    assert (record.attempts[0].outcome, record.timeline[-1].event) == ("lost", "agent_lost")
    assert record.timeline[-1].detail == {
        "agent_identity": identity,
        "reason": "the agent fell silent",
    }
    assert record.deadline_at_ms == record.requested_at_ms + 20_000  # the clock starts anew
    assert record.agent_identity == record.job_id == ""
    assert await inside(scenario.house) == {"person"}
    assert await scenario.house.dispatches() == []
    found = keyspace(scenario.raw)
    assert "usher:leases" not in found
    assert list(found["usher:due"]) == ["dsp_1"]
    assert counts(scenario.raw, "usher:metrics:dispatch:acme")["agents_lost"] == 1


async def test_the_replacement_is_dispatched_and_joins(
    services: Services, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(), scenario.house)
    await scenario.house.join("person", agent=False)
    fall_silent(scenario.raw)
    await supervise(services, "dsp_1")

    second = await joined(services, scenario.look(), scenario.house)

    assert scenario.look().agent_identity == second
    assert await scenario.house.generations() == [("dsp_1", "2")]
    assert await inside(scenario.house) == {"person", second}


async def test_a_silent_agent_that_has_gone_by_itself_is_replaced(
    services: Services, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(), scenario.house)
    await scenario.house.everybody_leaves()
    await scenario.house.join("person", agent=False)
    fall_silent(scenario.raw)

    assert await supervise(services, "dsp_1") is State.QUEUED
    assert scenario.look().generation == 2


def asked_for_a_minute_ago(raw: redis.Redis) -> None:
    """Its caller has had the token for a minute, and nobody has come."""
    for name in ("created_at_ms", "requested_at_ms"):
        raw.hincrby(RECORD, name, -60_000)


async def test_an_agent_that_nobody_has_come_to_is_no_loss_to_anybody(
    services: Services, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(deadline_ms=90_000), scenario.house)
    asked_for_a_minute_ago(scenario.raw)
    fall_silent(scenario.raw)

    assert await supervise(services, "dsp_1") is State.QUEUED

    assert scenario.look().unattended
    found = counts(scenario.raw, "usher:metrics:dispatch:acme")
    assert (found.get("agents_lost"), found["idle_agents_lost"]) == (None, 1)
    (told,) = (text for text in incidents(scenario.look(), TIMINGS) if text.startswith("Attempt 1"))
    assert "before any person had come" in told


async def test_who_has_just_asked_counts_as_a_person_about_to_come(
    services: Services, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(), scenario.house)
    fall_silent(scenario.raw)

    assert await supervise(services, "dsp_1") is State.QUEUED

    assert not scenario.look().unattended
    assert counts(scenario.raw, "usher:metrics:dispatch:acme")["agents_lost"] == 1


async def test_a_caller_who_asks_again_while_its_room_is_looked_into_is_not_left_alone(
    services: Services, scenario: Scenario
) -> None:
    """The caller was told "joined", and the look before that has seen an empty room."""
    await joined(services, scenario.request_dispatch(deadline_ms=90_000), scenario.house)
    asked_for_a_minute_ago(scenario.raw)
    seen = scenario.look()
    again = new_dispatch("dsp_2", room_name=scenario.house.room)
    assert scenario.run(dispatches.create(again, due_in_s=2.0, detail={})).dispatch_id == "dsp_1"

    assert not await supervision._end(services, seen)

    fall_silent(scenario.raw)
    assert await supervise(services, "dsp_1") is State.QUEUED


async def test_a_caller_who_asks_again_makes_it_one_with_a_caller(
    services: Services, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(deadline_ms=90_000), scenario.house)
    asked_for_a_minute_ago(scenario.raw)
    fall_silent(scenario.raw)
    await supervise(services, "dsp_1")

    again = new_dispatch("dsp_2", room_name=scenario.house.room)
    assert scenario.run(dispatches.create(again, due_in_s=2.0, detail={})).dispatch_id == "dsp_1"

    assert not scenario.look().unattended


async def test_a_session_that_had_its_agent_and_failed_counts_once(
    services: Services, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(), scenario.house)
    await scenario.house.join("person", agent=False)
    scenario.raw.hset(RECORD, "losses", "5")
    fall_silent(scenario.raw)

    assert await supervise(services, "dsp_1") is State.FAILED

    (acme,) = scenario.run(figures(Window.ALL, ["acme"])).clients
    assert (acme.joined, acme.failures) == (1, 1)
    assert (acme.served, acme.unserved, acme.success_rate) == (0, 1, 0.0)


async def test_a_person_who_has_not_come_yet_finds_an_agent(
    services: Services, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(), scenario.house)
    fall_silent(scenario.raw)

    assert await supervise(services, "dsp_1") is State.QUEUED
    assert scenario.look().generation == 2


async def test_when_everybody_has_left_the_dispatch_has_ended_and_its_agent_is_put_out(
    services: Services, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(), scenario.house)
    scenario.raw.hset(RECORD, "person_seen", "1")
    fall_silent(scenario.raw)

    assert await supervise(services, "dsp_1") is State.ENDED

    assert (scenario.look().generation, scenario.look().failure_reason) == (1, "")
    assert await inside(scenario.house) == set()
    assert await scenario.house.dispatches() == []
    found = keyspace(scenario.raw)
    assert not {"usher:leases", "usher:due"} & set(found)
    assert not [key for key in found if key.startswith("usher:live:")]
    assert scenario.raw.ttl(RECORD) > 0


async def test_another_agent_in_the_room_is_no_person_and_is_left_alone(
    services: Services, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(), scenario.house)
    await scenario.house.join("somebody", attributes={"lk.agent_name": "another-agent"})
    scenario.raw.hset(RECORD, "person_seen", "1")
    fall_silent(scenario.raw)

    assert await supervise(services, "dsp_1") is State.ENDED

    assert await inside(scenario.house) == {"somebody"}


async def test_an_agent_that_renews_nothing_by_nature_stays_while_livekit_lists_it(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_UNFENCED_AGENTS=AGENT_NAME)
    identity = await joined(services, scenario.request_dispatch(), scenario.house)
    await scenario.house.join("person", agent=False)
    await scenario.house.join("surplus", attributes={"lk.agent_name": AGENT_NAME})
    fall_silent(scenario.raw)
    before_ms = scenario.run(reports.ping())

    assert await supervise(services, "dsp_1") is State.JOINED

    assert (scenario.look().generation, scenario.look().agent_identity) == (1, identity)
    assert await inside(scenario.house) == {"person", identity}  # two would be one too many
    assert keyspace(scenario.raw)["usher:leases"]["dsp_1"] >= before_ms + LOOK_AGAIN_S * 1000


async def test_an_agent_that_renews_nothing_by_nature_is_replaced_once_livekit_lists_it_no_more(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_UNFENCED_AGENTS=AGENT_NAME)
    await joined(services, scenario.request_dispatch(), scenario.house)
    await scenario.house.everybody_leaves()
    await scenario.house.join("person", agent=False)
    fall_silent(scenario.raw)

    assert await supervise(services, "dsp_1") is State.QUEUED


async def test_an_agent_that_dies_again_and_again_is_not_replaced_for_ever(
    services: Services, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(), scenario.house)
    await scenario.house.join("person", agent=False)
    scenario.raw.hset(RECORD, "losses", services.settings.max_losses)
    fall_silent(scenario.raw)

    assert await supervise(services, "dsp_1") is State.FAILED

    record = scenario.look()
    assert (record.failure_reason, record.generation) == ("agent_lost", 1)
    assert f"{services.settings.max_losses + 1} agents in a row" in record.failure_message
    assert await inside(scenario.house) == {"person"}
    assert "usher:leases" not in keyspace(scenario.raw)


async def test_while_livekit_cannot_be_asked_nothing_is_decided_and_it_is_asked_again(
    services: Services, services_for: OpenServices, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(), scenario.house)
    async with listening(never_answering) as port:
        pass
    blind = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{port}")
    fall_silent(scenario.raw)
    before, before_ms = keyspace(scenario.raw), scenario.run(reports.ping())

    assert await supervise(blind, "dsp_1") is State.JOINED

    found, after_ms = keyspace(scenario.raw), scenario.run(reports.ping())
    again_ms = found["usher:leases"].pop("dsp_1")
    assert before_ms <= again_ms - int(LOOK_AGAIN_S * 1000) <= after_ms
    assert int(found["usher:dispatch:dsp_1"].pop("look_at_ms")) == again_ms
    before["usher:leases"].pop("dsp_1")
    assert found == before


@pytest.mark.parametrize("state", ["queued", "waiting", "accepted", "ended", "failed"])
async def test_there_is_nothing_to_supervise_in_a_state_that_is_not_joined(
    state: str, services: Services, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(), scenario.house)
    scenario.raw.hset(RECORD, "state", state)
    before, present = keyspace(scenario.raw), await inside(scenario.house)

    assert await supervise(services, "dsp_1") == state

    assert keyspace(scenario.raw) == before
    assert await inside(scenario.house) == present


async def test_an_unknown_dispatch_cannot_be_supervised(services: Services) -> None:
    with pytest.raises(UnknownDispatch, match="dsp_none"):
        await supervise(services, "dsp_none")


async def test_a_message_too_late_leaves_an_agent_that_has_been_heard_since_alone(
    services: Services, scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch()
    scenario.run(dispatches.advance(Advance(dispatch, state_machine.DISPATCH_STARTED, due_in_s=12)))
    scenario.run(
        dispatches.advance(
            Advance(dispatch, state_machine.ACCEPTED, due_in_s=7, fields={"job_id": "AJ_1"})
        )
    )
    await scenario.house.join_for(dispatch)
    await scenario.house.join("person", agent=False)
    assert await verification.verify_dispatch(services, "dsp_1") is State.JOINED
    renewal = leases.renew(
        dispatch, job_id="AJ_1", people=1, abandon_after_s=300, deserted_after_s=30
    )
    assert scenario.run(renewal) is leases.Renewal.OK

    assert await supervise(services, "dsp_1") is State.JOINED

    assert scenario.look().generation == 1


async def test_a_message_that_has_waited_too_long_is_left_to_the_next_one(
    services: Services, scenario: Scenario
) -> None:
    await joined(services, scenario.request_dispatch(), scenario.house)
    await scenario.house.join("person", agent=False)
    fall_silent(scenario.raw)
    now_ms = scenario.look().read_at_ms

    assert await supervise(services, "dsp_1", good_till_ms=now_ms - 1) is State.JOINED
    assert await supervise(services, "dsp_1", good_till_ms=now_ms + 60_000) is State.QUEUED
