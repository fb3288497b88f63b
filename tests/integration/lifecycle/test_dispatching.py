"""Does a queued dispatch reach LiveKit exactly once, whatever fails on the way?

Real Redis, real LiveKit, no Celery: the coroutine of the task is called as a worker calls it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
import redis
from livekit import api

from dispatcher.domain import models, state_machine
from dispatcher.domain.models import State
from dispatcher.errors import DispatchFailed, TransientLiveKitError, UnknownDispatch
from dispatcher.ledger import dispatches, endings, reports
from dispatcher.ledger.advance import Advance
from dispatcher.lifecycle import dispatching
from dispatcher.lifecycle.services import Services
from dispatcher.livekit import client
from tests.support.house import House, OpenServices, Request
from tests.support.scenario import Scenario
from tests.support.sockets import LossyProxy, listening, never_answering
from tests.support.values import UNREACHABLE, a_server, counts, keyspace

METRICS = "usher:metrics:dispatch:acme"
pytestmark = pytest.mark.usefixtures("agent_server")


class Waits:
    """Stands in for the waiting between tries."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


async def closed_port() -> int:
    async with listening(never_answering) as port:
        return port


async def test_a_queued_dispatch_reaches_livekit(services: Services, scenario: Scenario) -> None:
    scenario.request_dispatch()

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED

    record = scenario.look()
    (listed,) = await scenario.house.dispatches()
    assert record.livekit_dispatch_id == listed.id
    assert await scenario.house.generations() == [("dsp_1", "1")]
    assert record.attempts == (
        models.Attempt(generation=1, livekit_dispatch_id=listed.id, tries=1),
    )
    assert [event.event for event in record.timeline] == ["queued", "dispatching", "dispatched"]


async def test_an_unknown_dispatch_is_an_error_and_writes_nothing(
    services: Services, raw: redis.Redis
) -> None:
    before = keyspace(raw)

    with pytest.raises(UnknownDispatch, match="dsp_none"):
        await dispatching.dispatch_agent(services, "dsp_none")

    assert keyspace(raw) == before


async def test_twenty_messages_at_once_ask_livekit_once(
    services_for: OpenServices, scenario: Scenario
) -> None:
    scenario.request_dispatch()
    proxy = LossyProxy(
        target_port=int(scenario.house.server.url.rpartition(":")[2]), losing=b"CreateRoom", times=0
    )

    async with listening(proxy) as port:
        services = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{port}")
        await asyncio.gather(*(dispatching.dispatch_agent(services, "dsp_1") for _ in range(20)))

    assert proxy.seen == 1
    assert await scenario.house.generations() == [("dsp_1", "1")]
    assert [event.event for event in scenario.look().timeline] == [
        "queued",
        "dispatching",
        "dispatched",
    ]


async def test_a_message_too_late_changes_nothing(services: Services, scenario: Scenario) -> None:
    scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    before = keyspace(scenario.raw)

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED

    assert keyspace(scenario.raw) == before
    assert await scenario.house.generations() == [("dsp_1", "1")]


async def test_livekit_down_is_tried_three_times_and_then_waits(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{await closed_port()}")
    scenario.request_dispatch()
    waits = Waits()

    with pytest.raises(TransientLiveKitError):
        await dispatching.dispatch_agent(replace(services, sleep=waits), "dsp_1")

    record = scenario.look()
    assert waits.seconds == [1.0, 2.0]
    assert (record.state, record.generation) == (State.WAITING, 2)
    assert record.failure_reason == "livekit_unreachable"
    (attempt,) = record.attempts
    assert (attempt.tries, attempt.outcome, attempt.reason) == (
        3,
        "given_up",
        "livekit_unreachable",
    )
    assert [error.partition(":")[0] for error in attempt.errors] == ["try 1", "try 2", "try 3"]
    assert all("cannot be reached" in error for error in attempt.errors)
    assert counts(scenario.raw, METRICS)["attempts"] == 3


async def test_a_room_that_livekit_has_lost_gets_its_agent_when_its_person_joins_again(
    services: Services, monkeypatch: pytest.MonkeyPatch, scenario: Scenario
) -> None:
    """It was deleted while the person joined. An agent could not meet them, and nothing is wrong
    with the client's LiveKit."""
    monkeypatch.setattr(client, "LOST_ROOM_ANSWERS_WITHIN_S", 2.0)  # on a busy machine
    async with scenario.house.lost():
        scenario.request_dispatch(deadline_ms=60_000)
        for transition in (state_machine.DISPATCH_STARTED, state_machine.NEXT_GENERATION):
            scenario.run(dispatches.advance(Advance(scenario.look(), transition, due_in_s=12)))

        with pytest.raises(TransientLiveKitError):
            await dispatching.dispatch_agent(replace(services, sleep=Waits()), "dsp_1")

        record = scenario.look()
        assert (record.state, record.failure_reason) == (State.WAITING, "livekit_unreachable")
        assert "has to leave it and join again" in record.failure_message
        await scenario.house.join("late", agent=False)
        assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED
    assert await scenario.house.generations() == [("dsp_1", "3")]


async def test_after_an_outage_nothing_is_sent_before_an_agent_server_is_back(
    services: Services, scenario: Scenario
) -> None:
    """LiveKit would drop the job, and only a time-out would tell."""
    dispatch = scenario.request_dispatch()
    step = dispatches.advance(Advance(dispatch, state_machine.WAIT, due_in_s=1, fields=UNREACHABLE))
    await services.ledger.run(step)
    scenario.raw.delete("usher:agent_servers")

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.WAITING

    assert scenario.look().failure_reason == "no_agent_online"
    assert [event.event for event in scenario.look().timeline][-2:] == ["dispatching", "waiting"]
    assert await scenario.house.dispatches() == []
    assert scenario.raw.zscore("usher:waiting", "dsp_1")

    await services.ledger.run(reports.report_agent_server(a_server(), ttl_s=60))
    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED


async def test_after_an_outage_a_full_agent_server_is_there_too(
    services: Services, request_dispatch: Request, house: House
) -> None:
    dispatch = request_dispatch()
    step = dispatches.advance(Advance(dispatch, state_machine.WAIT, due_in_s=1, fields=UNREACHABLE))
    await services.ledger.run(step)
    full = a_server(used_slots=a_server().slots)
    await services.ledger.run(reports.report_agent_server(full, ttl_s=60))

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED

    assert await house.generations() == [("dsp_1", "2")]


async def test_what_is_cancelled_between_two_tries_is_asked_for_no_more(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{await closed_port()}")
    scenario.request_dispatch()

    async def cancelled(_: float) -> None:
        scenario.run(endings.cancel(scenario.look(), retention_s=60))

    waiting = replace(services, sleep=cancelled)
    assert await dispatching.dispatch_agent(waiting, "dsp_1") is State.CANCELLED


async def test_an_outage_in_the_middle_takes_the_agent_servers_along(
    services_for: OpenServices, scenario: Scenario
) -> None:
    scenario.request_dispatch()
    target = int(scenario.house.server.url.rpartition(":")[2])
    proxy = LossyProxy(target_port=target, losing=b"CreateRoom", times=1)

    async def gone(_: float) -> None:
        scenario.raw.delete("usher:agent_servers")
        await scenario.house.lk.room.delete_room(api.DeleteRoomRequest(room=scenario.house.room))

    async with listening(proxy) as port:
        services = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{port}")
        assert (
            await dispatching.dispatch_agent(replace(services, sleep=gone), "dsp_1")
            is State.WAITING
        )

    assert scenario.look().failure_reason == "no_agent_online"
    assert (scenario.look().attempts[0].tries, len(scenario.look().attempts[0].errors)) == (2, 1)
    assert await scenario.house.dispatches() == []


async def test_a_job_that_was_offered_all_the_same_is_not_given_up(
    services_for: OpenServices, scenario: Scenario
) -> None:
    """Every reply is lost, but an agent server has got the job meanwhile."""
    services = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{await closed_port()}")
    scenario.request_dispatch()

    async def accepted_meanwhile(_: float) -> None:
        step = dispatches.advance(
            Advance(scenario.look(), state_machine.ACCEPTED, due_in_s=3, fields={"job_id": "AJ_1"})
        )
        scenario.run(step)

    state = await dispatching.dispatch_agent(replace(services, sleep=accepted_meanwhile), "dsp_1")

    assert state is State.ACCEPTED
    assert (scenario.look().state, scenario.look().generation, scenario.look().job_id) == (
        State.ACCEPTED,
        1,
        "AJ_1",
    )


async def test_what_waited_for_livekit_goes_on_when_livekit_is_back(
    services_for: OpenServices, scenario: Scenario
) -> None:
    down = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{await closed_port()}")
    scenario.request_dispatch()
    with pytest.raises(TransientLiveKitError):
        await dispatching.dispatch_agent(replace(down, sleep=Waits()), "dsp_1")

    up = await services_for()
    assert await dispatching.dispatch_agent(up, "dsp_1") is State.DISPATCHED

    assert await scenario.house.generations() == [("dsp_1", "2")]


async def test_a_refusal_is_tried_once_and_fails_with_its_reason(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(LIVEKIT_API_SECRET="x" * 32)
    scenario.request_dispatch()
    waits = Waits()

    with pytest.raises(DispatchFailed, match="livekit_refused"):
        await dispatching.dispatch_agent(replace(services, sleep=waits), "dsp_1")

    record = scenario.look()
    assert waits.seconds == []
    assert (record.state, record.failure_reason) == (State.FAILED, "livekit_refused")
    assert "401" in record.failure_message
    assert "x" * 32 not in str(record)
    (attempt,) = record.attempts
    assert (attempt.tries, attempt.outcome, len(attempt.errors)) == (1, "failed", 1)
    metrics = counts(scenario.raw, METRICS)
    assert (metrics["failures"], metrics["failures:livekit_refused"]) == (1, 1)


@pytest.mark.parametrize(
    ("losing", "room_is_there"),
    [(b"CreateRoom", False), (b"ListDispatch", False), (b"CreateDispatch", True)],
)
async def test_a_lost_reply_is_looked_for_before_the_next_try(
    losing: bytes, room_is_there: bool, services_for: OpenServices, scenario: Scenario
) -> None:
    if room_is_there:
        await scenario.house.lk.room.create_room(api.CreateRoomRequest(name=scenario.house.room))
    target_port = int(scenario.house.server.url.rpartition(":")[2])
    proxy = LossyProxy(target_port=target_port, losing=losing, times=1)
    scenario.request_dispatch()

    async with listening(proxy) as port:
        services = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{port}")
        await dispatching.dispatch_agent(replace(services, sleep=Waits()), "dsp_1")

    (listed,) = await scenario.house.dispatches()
    record = scenario.look()
    assert proxy.lost == 1
    assert record.livekit_dispatch_id == listed.id
    assert record.attempt.tries == 2
    assert await scenario.house.generations() == [("dsp_1", "1")]


async def test_what_has_only_waited_is_asked_for_as_quickly_as_a_new_one(
    services_for: OpenServices, scenario: Scenario
) -> None:
    """LiveKit was never asked: no look for an earlier job, and room and agent in one call."""
    target = int(scenario.house.server.url.rpartition(":")[2])
    proxy = LossyProxy(target_port=target, losing=b"CreateDispatch", times=3)
    async with listening(proxy) as port:
        services = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{port}")
        scenario.request_dispatch()
        scenario.raw.delete("usher:agent_servers")
        assert await dispatching.dispatch_agent(services, "dsp_1") is State.WAITING
        assert scenario.look().attempts[0].outcome == "waited"
        await services.ledger.run(reports.report_agent_server(a_server(), ttl_s=60))

        assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED

    assert scenario.look().attempts[1].tries == 1
    assert await scenario.house.generations() == [("dsp_1", "2")]


async def test_a_room_that_is_there_before_gets_its_agent_too(
    services: Services, scenario: Scenario
) -> None:
    await scenario.house.lk.room.create_room(api.CreateRoomRequest(name=scenario.house.room))
    scenario.request_dispatch()

    await dispatching.dispatch_agent(services, "dsp_1")

    (listed,) = await scenario.house.dispatches()
    assert scenario.look().livekit_dispatch_id == listed.id
    assert (scenario.look().state, scenario.look().attempt.tries) == (State.DISPATCHED, 1)


async def test_a_next_generation_takes_the_older_ones_back_first(
    services: Services, scenario: Scenario
) -> None:
    scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    scenario.run(
        dispatches.advance(Advance(scenario.look(), state_machine.NEXT_GENERATION, due_in_s=2))
    )

    await dispatching.dispatch_agent(services, "dsp_1")

    assert await scenario.house.generations() == [("dsp_1", "2")]


async def test_the_dispatches_of_others_in_the_room_are_left_alone(
    services: Services, scenario: Scenario
) -> None:
    another = a_server("server-2", agent_name="another-agent")
    scenario.run(reports.report_agent_server(another, ttl_s=60))
    scenario.request_dispatch("dsp_2", agent_name="another-agent")
    await dispatching.dispatch_agent(services, "dsp_2")
    scenario.request_dispatch()
    scenario.run(
        dispatches.advance(
            Advance(scenario.look(), state_machine.WAIT, due_in_s=2, fields=UNREACHABLE)
        )
    )

    await dispatching.dispatch_agent(services, "dsp_1")

    assert await scenario.house.generations() == [("dsp_1", "2"), ("dsp_2", "1")]


async def test_a_worker_that_was_overtaken_takes_its_surplus_dispatch_back(
    services_for: OpenServices, scenario: Scenario
) -> None:
    """Its first try finds LiveKit down; while it waits, the record gets a next generation."""
    scenario.request_dispatch()
    reachable = asyncio.Event()
    target = LossyProxy(
        target_port=int(scenario.house.server.url.rpartition(":")[2]), losing=b"", times=0
    )

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if reachable.is_set():
            await target(reader, writer)

    async def overtaken(_: float) -> None:
        scenario.run(
            dispatches.advance(Advance(scenario.look(), state_machine.NEXT_GENERATION, due_in_s=2))
        )
        reachable.set()

    async with listening(handle) as port:
        slow = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{port}")
        assert (
            await dispatching.dispatch_agent(replace(slow, sleep=overtaken), "dsp_1")
            is State.QUEUED
        )

    assert await scenario.house.dispatches() == []
    assert (scenario.look().state, scenario.look().generation) == (State.QUEUED, 2)


async def test_a_worker_that_was_overtaken_leaves_the_next_generation_alone(
    services: Services, services_for: OpenServices, scenario: Scenario
) -> None:
    """The reply to its first try is lost; while it waits, another worker brings the next one."""
    scenario.request_dispatch()
    target_port = int(scenario.house.server.url.rpartition(":")[2])
    proxy = LossyProxy(target_port=target_port, losing=b"CreateRoom", times=1)

    async def overtaken(_: float) -> None:
        scenario.run(
            dispatches.advance(Advance(scenario.look(), state_machine.NEXT_GENERATION, due_in_s=2))
        )
        await dispatching.dispatch_agent(services, "dsp_1")

    async with listening(proxy) as port:
        slow = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{port}")
        assert (
            await dispatching.dispatch_agent(replace(slow, sleep=overtaken), "dsp_1")
            is State.DISPATCHED
        )

    assert await scenario.house.generations() == [("dsp_1", "2")]
    assert proxy.seen == 1
