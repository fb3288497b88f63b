"""Is a job given to one agent server that can take it, and else asked of LiveKit?"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import pytest_asyncio

from dispatcher.domain import state_machine
from dispatcher.domain.models import Dispatch, State
from dispatcher.ledger import admission, dispatches, placing, reports
from dispatcher.ledger.advance import Advance
from dispatcher.lifecycle import dispatching, verification
from dispatcher.lifecycle.services import Services
from tests.support.house import OpenServices
from tests.support.scenario import Scenario
from tests.support.values import a_server, keyspace

QUICK = {"USHER_VERIFY_TIMEOUT_S": "1", "USHER_VERIFY_POLL_S": "0.1"}


@pytest_asyncio.fixture
async def placing_services(services_for: OpenServices) -> Services:
    return await services_for(USHER_PLACEMENT="direct", **QUICK)


def report(scenario: Scenario, *servers: dict[str, object]) -> None:
    for number, each in enumerate(servers, 1):
        server = a_server(f"server-{number}", **{"direct": True, **each})
        scenario.store.run(reports.report_agent_server(server, ttl_s=600))


def taken(scenario: Scenario, agent_server_id: str) -> list[dict[str, object]]:
    return [json.loads(job) for job in scenario.store.run(placing.take(agent_server_id))]


def used(scenario: Scenario) -> dict[str, int]:
    servers = scenario.store.run(reports.agent_servers())
    return {server.agent_server_id: server.used_slots for server in servers}


async def test_the_agent_server_with_the_most_room_gets_the_job(
    placing_services: Services, scenario: Scenario
) -> None:
    report(scenario, {"used_slots": 2}, {"used_slots": 0}, {"used_slots": 1})
    scenario.request_dispatch()

    assert await dispatching.dispatch_agent(placing_services, "dsp_1") is State.DISPATCHED

    assert [len(taken(scenario, f"server-{n}")) for n in (1, 3)] == [0, 0]
    (job,) = taken(scenario, "server-2")
    assert job["agentName"] == "session-agent-rag"
    assert taken(scenario, "server-2") == []  # once
    record = scenario.look()
    assert (record.attempt.placement, record.attempt.agent_server_id) == ("direct", "server-2")
    assert record.timeline[-1].detail == {
        "placement": "direct",
        "tries": "1",
        "agent_server_id": "server-2",
    }
    assert used(scenario) == {"server-1": 2, "server-2": 1, "server-3": 1}
    assert await scenario.house.generations() == [("", "")]  # an agent that does not exist
    assert "usher:inflight:acme:session-agent-rag" not in keyspace(scenario.raw)


@pytest.mark.parametrize("roomy", [1, 2, 3])
async def test_whichever_it_is(placing_services: Services, scenario: Scenario, roomy: int) -> None:
    report(scenario, *({"used_slots": 1 if number == roomy else 2} for number in (1, 2, 3)))
    scenario.request_dispatch()

    await dispatching.dispatch_agent(placing_services, "dsp_1")

    assert scenario.look().attempt.agent_server_id == f"server-{roomy}"


async def test_where_none_has_room_any_more_nothing_is_written(
    placing_services: Services, scenario: Scenario
) -> None:
    report(scenario, {"used_slots": 4}, {"draining": True})
    new = scenario.request_dispatch()
    scenario.store.run(dispatches.advance(Advance(new, state_machine.DISPATCH_STARTED, due_in_s=9)))
    before = keyspace(scenario.raw)
    servers = ["server-1", "server-2", "server-gone"]
    command = Advance(
        new,
        state_machine.DISPATCH_CREATED,
        due_in_s=9,
        place=placing.Place(servers=servers, job="{}"),
    )

    assert scenario.store.run(dispatches.advance(command)).outcome == "unplaced"

    assert keyspace(scenario.raw) == before


async def test_a_claim_takes_no_second_slot(placing_services: Services, scenario: Scenario) -> None:
    report(scenario, {"used_slots": 0})
    scenario.request_dispatch()
    await dispatching.dispatch_agent(placing_services, "dsp_1")

    _claim(scenario, scenario.look(), "server-1")

    assert used(scenario) == {"server-1": 1}


@pytest.mark.parametrize(
    "server",
    [
        {"direct": False},
        {"draining": True},
        {"container": "another"},
        {"client_id": "another"},
        {"deployment": "another"},
        {"agent_name": "another"},
        {"registered": False},
        {"cannot_start": True},
        {"takes": 0},
        {"starts": 0},
        {"used_slots": 4},
    ],
)
async def test_an_agent_server_that_may_not_take_it_is_given_none(
    placing_services: Services, scenario: Scenario, server: dict[str, object]
) -> None:
    report(scenario, server, {"direct": False})
    scenario.request_dispatch(container="box-1")

    assert await dispatching.dispatch_agent(placing_services, "dsp_1") is State.DISPATCHED

    assert taken(scenario, "server-1") == []
    assert await scenario.house.generations() == [("dsp_1", "1")]
    assert scenario.look().attempt.placement == ""


async def test_livekit_is_asked_unless_direct_placement_is_wanted(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(**QUICK)
    report(scenario, {})
    scenario.request_dispatch()

    await dispatching.dispatch_agent(services, "dsp_1")

    assert taken(scenario, "server-1") == []
    assert await scenario.house.generations() == [("dsp_1", "1")]


async def test_one_that_does_not_claim_is_passed_by_and_after_two_livekit_is_asked(
    placing_services: Services, scenario: Scenario
) -> None:
    report(scenario, {}, {}, {})
    scenario.request_dispatch()
    placed_on = []
    for _ in range(2):
        await dispatching.dispatch_agent(placing_services, "dsp_1")
        placed_on.append(scenario.look().attempt.agent_server_id)
        assert await verification.verify_dispatch(placing_services, "dsp_1") is State.QUEUED
    assert len(set(placed_on)) == 2
    queued = scenario.look()
    given_up = [event for event in queued.timeline if event.event == "requeued"]
    dispatched = [event for event in queued.timeline if event.event == "dispatched"]
    for sent, left in zip(dispatched, given_up, strict=True):
        assert 400 <= left.at_ms - sent.at_ms <= 900
        assert sent.detail["agent_server_id"] in left.detail["message"]

    await dispatching.dispatch_agent(placing_services, "dsp_1")

    assert scenario.look().attempt.placement == ""
    assert ("dsp_1", "3") in await scenario.house.generations()


async def test_a_job_is_dropped_when_its_attempt_has_been_given_up(
    placing_services: Services, scenario: Scenario
) -> None:
    report(scenario, {})
    scenario.request_dispatch()
    await dispatching.dispatch_agent(placing_services, "dsp_1")
    key = "usher:jobs:server-1"
    assert 0 < scenario.raw.ttl(key) <= 10
    until, _, job = scenario.raw.lrange(key, 0, -1)[0].partition(" ")
    scenario.raw.lset(key, 0, f"{int(until) - 10_000} {job}")

    assert taken(scenario, "server-1") == []


async def test_a_record_that_has_moved_on_gives_no_job(
    placing_services: Services, scenario: Scenario
) -> None:
    report(scenario, {})
    before = scenario.request_dispatch()
    await dispatching.dispatch_agent(placing_services, "dsp_1")
    taken(scenario, "server-1")
    again = Advance(
        replace(before, generation=1),
        state_machine.DISPATCH_CREATED,
        place=placing.Place(servers=["server-1"], job="{}"),
    )
    stale = replace(again, dispatch=replace(before, generation=2))

    assert scenario.store.run(dispatches.advance(stale)).outcome == "stale"
    assert scenario.store.run(dispatches.advance(again)).outcome == "refused"

    assert taken(scenario, "server-1") == []
    assert used(scenario) == {"server-1": 2}


def _claim(scenario: Scenario, dispatch: Dispatch, agent_server_id: str) -> None:
    claim = Advance(
        dispatch,
        state_machine.ACCEPTED,
        fields={"job_id": "AJ_1", "agent_server_id": agent_server_id},
        inflight=admission.CLAIMED,
        due_in_s=3,
    )
    assert scenario.store.run(dispatches.advance(claim)).moved
