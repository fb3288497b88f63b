"""Is a dispatch that waits, or has lost its worker, looked at again before its deadline?"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest

from dispatcher.domain import state_machine
from dispatcher.domain.models import Dispatch, State
from dispatcher.errors import DispatchFailed
from dispatcher.ledger import dispatches, reports
from dispatcher.ledger.advance import Advance
from dispatcher.lifecycle import dispatching, verification
from dispatcher.lifecycle.services import Services
from tests.support.house import OpenServices, Request
from tests.support.scenario import Scenario
from tests.support.sockets import listening, never_answering
from tests.support.values import UNREACHABLE, eventually, keyspace

SWEEP_PUSH_S = 2.0  # as in dispatcher.tasks, which makes a Celery application when imported

Look = Callable[[], Dispatch]


async def test_a_waiting_dispatch_without_an_agent_server_is_left_waiting(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for()
    scenario.run(
        dispatches.advance(
            Advance(
                scenario.request_dispatch(),
                state_machine.WAIT,
                due_in_s=0,
                fields={"failure_reason": "no_agent_online", "failure_message": "start one"},
            )
        )
    )
    before, due_ms = scenario.look(), keyspace(scenario.raw)["usher:due"]["dsp_1"]

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.WAITING

    assert scenario.look().timeline == before.timeline
    assert keyspace(scenario.raw)["usher:due"]["dsp_1"] > due_ms
    assert await scenario.house.dispatches() == []


async def test_near_its_deadline_a_dispatch_fails_with_what_it_waited_for(
    services: Services, scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch(deadline_ms=1000)
    scenario.run(
        dispatches.advance(Advance(dispatch, state_machine.WAIT, due_in_s=0, fields=UNREACHABLE))
    )

    with pytest.raises(DispatchFailed, match="livekit_unreachable: it was"):
        await dispatching.dispatch_agent(services, "dsp_1")

    record = scenario.look()
    assert (record.state, record.failure_reason) == (State.FAILED, "livekit_unreachable")
    assert record.updated_at_ms < record.deadline_at_ms
    assert await scenario.house.dispatches() == []


async def test_a_dispatching_record_whose_worker_is_gone_is_taken_over_when_the_sweeper_wakes_it(
    services: Services, scenario: Scenario
) -> None:
    scenario.run(
        dispatches.advance(
            Advance(scenario.request_dispatch(), state_machine.DISPATCH_STARTED, due_in_s=12)
        )
    )
    a_while_ago_ms = scenario.run(reports.ping()) - 13_000
    scenario.raw.hset("usher:dispatch:dsp_1", "updated_at_ms", a_while_ago_ms)
    scenario.raw.zadd("usher:due", {"dsp_1": a_while_ago_ms + 12_000})
    assert scenario.run(dispatches.claim_due(limit=9, push_s=SWEEP_PUSH_S)) == ["dsp_1"]

    await dispatching.dispatch_agent(services, "dsp_1")

    assert (scenario.look().state, scenario.look().generation) == (State.DISPATCHED, 2)
    assert await scenario.house.generations() == [("dsp_1", "2")]


async def test_a_dispatching_record_whose_worker_is_at_it_is_left_alone(
    services: Services, scenario: Scenario
) -> None:
    scenario.run(
        dispatches.advance(
            Advance(scenario.request_dispatch(), state_machine.DISPATCH_STARTED, due_in_s=12)
        )
    )
    before = keyspace(scenario.raw)

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHING

    assert keyspace(scenario.raw) == before


@pytest.mark.usefixtures("agent_server")
async def test_a_dispatch_is_looked_at_before_its_deadline_although_livekit_hangs(
    services_for: OpenServices, scenario: Scenario
) -> None:
    scenario.request_dispatch(deadline_ms=6000)
    async with listening(never_answering) as port:
        services = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{port}")
        working = asyncio.create_task(dispatching.dispatch_agent(services, "dsp_1"))
        record = await eventually(
            lambda: scenario.look() if scenario.look().state is State.DISPATCHING else None
        )
        assert record is not None
        due_ms = keyspace(scenario.raw)["usher:due"]["dsp_1"]
        working.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await working

    assert due_ms < record.deadline_at_ms


@pytest.mark.usefixtures("agent_server")
async def test_a_worker_whose_livekit_hangs_ends_the_record_before_its_deadline(
    services_for: OpenServices, request_dispatch: Request, look: Look
) -> None:
    request_dispatch(deadline_ms=3000)
    async with listening(never_answering) as port:
        services = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{port}")
        with pytest.raises(DispatchFailed, match="livekit_unreachable"):
            await dispatching.dispatch_agent(services, "dsp_1")

    record = look()
    assert (record.state, record.failure_reason) == (State.FAILED, "livekit_unreachable")
    assert record.updated_at_ms < record.deadline_at_ms
    assert record.attempts[-1].errors == ("try 1: no answer before the deadline",)


@pytest.mark.usefixtures("agent_server")
async def test_what_livekit_has_taken_is_looked_at_before_its_deadline(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for()  # verification may take its 5 s
    scenario.request_dispatch(deadline_ms=6000)

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED

    assert keyspace(scenario.raw)["usher:due"]["dsp_1"] < scenario.look().deadline_at_ms


async def test_a_joined_record_does_not_say_why_it_had_to_wait(
    services: Services, scenario: Scenario
) -> None:
    scenario.run(
        dispatches.advance(
            Advance(scenario.request_dispatch(), state_machine.WAIT, due_in_s=0, fields=UNREACHABLE)
        )
    )
    await dispatching.dispatch_agent(services, "dsp_1")
    await scenario.house.join_for(scenario.look())

    assert await verification.verify_dispatch(services, "dsp_1") is State.JOINED

    assert (scenario.look().failure_reason, scenario.look().failure_message) == ("", "")
