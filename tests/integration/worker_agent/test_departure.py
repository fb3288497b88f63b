"""What becomes of a session whose lost agent was in its room, unseen by any worker?"""

from __future__ import annotations

import pytest

from dispatcher.domain import state_machine
from dispatcher.domain.metrics import AgentCounts
from dispatcher.domain.models import State
from dispatcher.ledger import dispatches
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.lifecycle.services import Services
from dispatcher.lifecycle.supervision import supervise
from tests.support.scenario import Scenario
from tests.support.values import AGENT_NAME, counts
from worker_agent import steps
from worker_agent.decisions import Offer
from worker_agent.departure import Departure, Told
from worker_agent.ending import Ending, People, of_exception, of_shutdown

COUNTED = AgentCounts(key=f"usher:metrics:agent:acme:box-1:{AGENT_NAME}", increments={})
STOPPED = of_shutdown("parent process shutdown", asked_for=False)
LEFT = People(present=0, left_ago_s=5.0)
losses = pytest.mark.parametrize(
    "ending", [STOPPED, of_exception(ValueError())], ids=["its server stops", "it raises"]
)


def connected(scenario: Scenario) -> Offer:
    """The job of an agent that has told that it is in its room; no verification has looked."""
    dispatch = scenario.request_dispatch()
    offer = Offer(
        job_id="AJ_1",
        participant_count=1,
        request_type="delegated",
        dispatch_id=dispatch.dispatch_id,
        client_id=dispatch.client_id,
        agent_name=dispatch.agent_name,
        room_name=dispatch.room_name,
        generation=1,
    )
    claim = Advance(offer, state_machine.ADOPTED, due_in_s=0.0, fields={"job_id": offer.job_id})
    assert scenario.run(dispatches.advance(claim)).moved
    step = steps.connected(offer, "agent-AJ_1", counts=COUNTED, verify=False)
    assert scenario.run(step).applied
    return offer


async def tell(store: AsyncLedger, offer: Offer, ending: Ending, people: People) -> None:
    departure = Departure(store, offer, COUNTED)
    assert await departure.tell(ending, people, in_room=True, dispatch=None) is Told.OVER


@losses
async def test_with_everybody_gone_it_has_ended_and_no_other_agent_is_sent(
    services: Services, scenario: Scenario, async_store: AsyncLedger, ending: Ending
) -> None:
    await tell(async_store, connected(scenario), ending, LEFT)

    assert await supervise(services, "dsp_1") is State.ENDED

    record = scenario.look()
    assert (record.generation, record.failure_reason, record.loss) == (1, "", ending.reason)
    assert record.attempts[0].outcome == "joined"
    assert counts(scenario.raw, "usher:metrics:dispatch:acme")["sessions_joined"] == 1


@losses
async def test_with_a_person_there_another_agent_takes_its_place(
    services: Services, scenario: Scenario, async_store: AsyncLedger, ending: Ending
) -> None:
    offer = connected(scenario)
    await scenario.house.join("person", agent=False)

    await tell(async_store, offer, ending, People(present=1))

    assert await supervise(services, "dsp_1") is State.QUEUED
    record = scenario.look()
    assert (record.generation, record.timeline[-1].event) == (2, "agent_lost")
    assert record.timeline[-1].detail["reason"] == ending.reason


async def test_an_agent_that_has_met_its_person_while_redis_was_away_has_not_waited_in_vain(
    services: Services, scenario: Scenario, async_store: AsyncLedger
) -> None:
    """The record has it as joined, and no renewal has told that a person was there."""
    offer = connected(scenario)
    assert scenario.run(steps.joined_unseen(offer)).moved

    await tell(async_store, offer, STOPPED, LEFT)

    assert await supervise(services, "dsp_1") is State.ENDED
    assert scenario.look().failure_reason == ""
