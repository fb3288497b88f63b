"""What does verification do without an agent, and when does it give an attempt up early?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from dispatcher.domain import state_machine, timing, verification_steps
from dispatcher.domain.models import Dispatch, State
from dispatcher.ledger import dispatches, leases, reports
from dispatcher.ledger.advance import Advance
from dispatcher.lifecycle import dispatching, verification
from dispatcher.lifecycle.services import Services
from tests.support.house import OpenServices, Request
from tests.support.scenario import Scenario
from tests.support.values import AGENT_NAME, a_server, keyspace

Look = Callable[[], Dispatch]
TakeAway = Callable[[], None]
pytestmark = pytest.mark.usefixtures("agent_server")


async def test_without_an_agent_server_the_dispatch_is_taken_back_and_waits(
    services: Services, no_agent_server: TakeAway, scenario: Scenario
) -> None:
    scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    no_agent_server()

    assert await verification.verify_dispatch(services, "dsp_1") is State.WAITING

    record = scenario.look()
    assert record.generation == 2
    assert record.failure_reason == "no_agent_online"
    assert "session-agent-rag" in record.failure_message
    assert (record.attempts[0].outcome, record.attempts[0].reason) == (
        "given_up",
        "no_agent_online",
    )
    assert await scenario.house.dispatches() == []
    assert list(keyspace(scenario.raw)["usher:due"]) == ["dsp_1"]


@pytest.mark.parametrize(
    ("report", "state"),
    [({"used_slots": 1}, State.QUEUED), ({"used_slots": 4}, State.WAITING)],
    ids=["free", "full"],
)
async def test_without_an_agent_it_tries_again_at_once_only_where_there_is_a_free_slot(
    report: dict[str, Any], state: State, services: Services, scenario: Scenario
) -> None:
    scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    scenario.run(reports.report_agent_server(a_server(**report), ttl_s=60))

    assert await verification.verify_dispatch(services, "dsp_1") is state

    assert scenario.look().generation == 2


async def test_when_the_time_is_up_it_fails_before_the_deadline_and_leaves_nothing_behind(
    services_for: OpenServices, no_agent_server: TakeAway, scenario: Scenario
) -> None:
    services = await services_for(USHER_VERIFY_TIMEOUT_S="5")
    scenario.request_dispatch(deadline_ms=3000)
    await dispatching.dispatch_agent(services, "dsp_1")
    no_agent_server()

    assert await verification.verify_dispatch(services, "dsp_1") is State.FAILED

    record = scenario.look()
    assert record.failure_reason == "no_agent_online"
    assert record.updated_at_ms < record.deadline_at_ms
    assert await scenario.house.dispatches() == []
    found = keyspace(scenario.raw)
    assert "usher:due" not in found
    assert not [key for key in found if key.startswith("usher:live:")]


async def test_twenty_verifications_at_once_give_one_attempt_up(
    services: Services, request_dispatch: Request, look: Look, no_agent_server: TakeAway
) -> None:
    request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    no_agent_server()

    states = await asyncio.gather(
        *(verification.verify_dispatch(services, "dsp_1") for _ in range(20))
    )

    assert set(states) == {State.WAITING}
    assert look().generation == 2
    assert [event.event for event in look().timeline].count("waiting") == 1


async def test_whoever_comes_too_late_to_give_up_leaves_the_joined_agents_dispatch_alone(
    services: Services, scenario: Scenario
) -> None:
    """Two verifications: one has seen no agent, the other sees it and writes joined first."""
    scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    seen_by_the_late_one = scenario.look()
    await scenario.house.join_for(seen_by_the_late_one)
    assert await verification.verify_dispatch(services, "dsp_1") is State.JOINED

    assert await verification._no_join(services, seen_by_the_late_one) is State.JOINED

    assert await scenario.house.generations() == [("dsp_1", "1")]


async def test_what_was_offered_to_nobody_in_time_is_given_up_early(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_VERIFY_TIMEOUT_S="9", USHER_OFFER_TIMEOUT_S="0.6")
    scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")

    started_s = time.monotonic()
    assert await verification.verify_dispatch(services, "dsp_1") is State.QUEUED

    assert time.monotonic() - started_s < 7
    record = scenario.look()
    assert record.updated_at_ms - record.timeline[-2].at_ms >= 600
    assert (record.generation, record.timeline[-1].event) == (2, "requeued")
    assert await scenario.house.dispatches() == []


async def test_in_a_burst_livekit_is_given_more_time_to_offer(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_VERIFY_TIMEOUT_S="9", USHER_OFFER_TIMEOUT_S="0.1")
    scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    others = {f"dsp_{number}": scenario.look().read_at_ms + 60_000 for number in range(2, 16)}
    scenario.raw.zadd(f"usher:inflight:acme:{AGENT_NAME}", others)

    started_s = time.monotonic()
    assert await verification.verify_dispatch(services, "dsp_1") is State.QUEUED

    assert (
        time.monotonic() - started_s >= 0.1 + len(others) * verification_steps.OFFER_TIMEOUT_EACH_S
    )
    assert scenario.raw.get(f"usher:window:acme:{AGENT_NAME}") is not None  # LiveKit has dropped it


async def test_an_agent_that_was_accepted_late_has_as_long_to_join_as_any(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_VERIFY_TIMEOUT_S="2", USHER_OFFER_TIMEOUT_S="9")
    dispatch = scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    verifying = asyncio.create_task(verification.verify_dispatch(services, "dsp_1"))
    await asyncio.sleep(0.7)
    scenario.run(
        dispatches.advance(
            Advance(dispatch, state_machine.ACCEPTED, due_in_s=7, fields={"job_id": "AJ_1"})
        )
    )
    accepted_s = time.monotonic()

    assert await verifying is State.QUEUED

    assert time.monotonic() - accepted_s >= 1.9


async def test_an_agent_whose_connection_is_being_made_has_twice_the_time(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_VERIFY_TIMEOUT_S="2", USHER_OFFER_TIMEOUT_S="9")
    dispatch = scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    scenario.run(
        dispatches.advance(
            Advance(dispatch, state_machine.ACCEPTED, due_in_s=1, fields={"job_id": "AJ_1"})
        )
    )
    accepted_s = time.monotonic()

    async with scenario.house.joining_for(dispatch):
        verifying = asyncio.create_task(verification.verify_dispatch(services, "dsp_1"))
        await asyncio.sleep(2.5)
        # Nor does the sweeper have another verification look at it meanwhile.
        assert scenario.raw.zscore("usher:due", "dsp_1") > scenario.look().read_at_ms + 1000
        assert await verifying is State.QUEUED

    assert 3.9 <= time.monotonic() - accepted_s < 6
    assert scenario.look().attempts[0].reason == "join_timeout"


async def test_an_agent_that_has_fallen_silent_before_it_was_seen_is_given_up_at_once(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_VERIFY_TIMEOUT_S="9")
    dispatch = scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    dead = await scenario.house.join_for(dispatch)  # LiveKit goes on listing it
    claimed = {"job_id": "AJ_1", "agent_identity": dead}
    scenario.run(
        dispatches.advance(Advance(dispatch, state_machine.ACCEPTED, due_in_s=7, fields=claimed))
    )
    renewal = leases.renew(
        dispatch, job_id="AJ_1", people=0, abandon_after_s=300, deserted_after_s=30
    )
    assert scenario.run(renewal) is leases.Renewal.OK
    long_ago = scenario.look().read_at_ms - int(timing.GRACE_S * 1000) - 1000
    scenario.raw.hset("usher:dispatch:dsp_1", "alive_till_ms", long_ago)

    started_s = time.monotonic()
    assert await verification.verify_dispatch(services, "dsp_1") is State.QUEUED

    assert time.monotonic() - started_s < 7
    assert scenario.look().generation == 2
    assert not scenario.raw.hexists("usher:dispatch:dsp_1", "alive_till_ms")
    assert (await services.livekit(dispatch).look(scenario.house.room)).agents == ()


async def test_what_an_agent_server_has_accepted_is_not_given_up_early(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_VERIFY_TIMEOUT_S="1.5", USHER_OFFER_TIMEOUT_S="0.1")
    dispatch = scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    scenario.run(
        dispatches.advance(
            Advance(dispatch, state_machine.ACCEPTED, due_in_s=7, fields={"job_id": "AJ_1"})
        )
    )

    started_s = time.monotonic()
    assert await verification.verify_dispatch(services, "dsp_1") is State.QUEUED

    assert time.monotonic() - started_s >= 1.4
    assert scenario.look().attempts[0].reason == "join_timeout"


async def test_an_agent_whose_servers_report_nothing_is_waited_for_to_the_end(
    services_for: OpenServices, request_dispatch: Request, no_agent_server: TakeAway, look: Look
) -> None:
    services = await services_for(
        USHER_VERIFY_TIMEOUT_S="1.5",
        USHER_OFFER_TIMEOUT_S="0.1",
        USHER_UNFENCED_AGENTS=f"another, {AGENT_NAME}",
    )
    no_agent_server()
    request_dispatch()
    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED

    started_s = time.monotonic()
    assert await verification.verify_dispatch(services, "dsp_1") is State.QUEUED

    assert time.monotonic() - started_s >= 1.4
    assert look().generation == 2
