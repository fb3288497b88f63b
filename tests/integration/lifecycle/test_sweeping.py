"""Does the sweep find whoever must be looked at, and end or park what nobody can help?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import redis

from dispatcher.clients.client_registry import ClientRegistry
from dispatcher.domain import state_machine
from dispatcher.domain.models import State
from dispatcher.ledger import dispatches, reports
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.celery_messages import DISPATCH_TASK, SUPERVISE_TASK, VERIFY_TASK
from dispatcher.lifecycle import sweeping, wake_waiting
from dispatcher.lifecycle.services import Services
from tests.support.house import OpenServices, Request
from tests.support.scenario import Scenario
from tests.support.values import UNREACHABLE, a_dispatch, a_server, counts, keyspace

RECORD = "usher:dispatch:dsp_1"


def due(raw: redis.Redis, *dispatch_ids: str) -> None:
    raw.zadd("usher:due", dict.fromkeys(dispatch_ids, 1))


async def woken(services: Services) -> list[str]:
    return [wake_up.dispatch_id for wake_up in await sweeping.sweep(services)]


def listed(raw: redis.Redis, dispatch_id: str) -> list[str]:
    """The lists that this dispatch is on."""
    lists = ("usher:due", "usher:leases", "usher:waiting")
    return [key for key in lists if raw.zscore(key, dispatch_id) is not None]


async def test_the_sweep_gives_what_is_due_and_what_has_fallen_silent(
    services: Services, scenario: Scenario
) -> None:
    for number in range(4):
        scenario.request_dispatch(f"dsp_{number}", room_name=f"room-{number}")
    scenario.raw.hset("usher:dispatch:dsp_1", "state", "joined")
    scenario.raw.hset("usher:dispatch:dsp_3", "state", "joined")
    now_ms = scenario.run(reports.ping())
    scenario.raw.delete("usher:due")
    scenario.raw.zadd("usher:due", {"dsp_0": 1, "dsp_2": now_ms + 60_000})
    scenario.raw.zadd("usher:leases", {"dsp_1": 1, "dsp_3": now_ms + 60_000})
    scenario.raw.set("usher:leases:looked_at", now_ms)

    assert await woken(services) == ["dsp_0", "dsp_1"]
    assert await woken(services) == []  # both are left alone for a while

    assert scenario.raw.zscore("usher:due", "dsp_0") > now_ms + 1000
    assert scenario.raw.zscore("usher:leases", "dsp_1") > now_ms + 1000


@pytest.mark.parametrize(
    ("state", "task"),
    [
        (State.QUEUED, DISPATCH_TASK),
        (State.WAITING, DISPATCH_TASK),
        (State.DISPATCHING, DISPATCH_TASK),  # its worker is gone: whoever takes it up finds out
        (State.DISPATCHED, VERIFY_TASK),
        (State.OFFERED, VERIFY_TASK),
        (State.ACCEPTED, VERIFY_TASK),
        (State.JOINED, SUPERVISE_TASK),
    ],
)
def test_each_is_woken_in_the_way_of_its_state(
    state: State, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    published: list[tuple[str, ...]] = []
    monkeypatch.setattr(sweeping, "wake_worker", lambda *args, **_: published.append(args))

    sweeping.publish(a_dispatch(state=state))

    assert published == [(task, "dsp_1", "room-1")]


@pytest.mark.parametrize(("length", "wakes"), [(2, True), (3, False), (9, False)])
async def test_a_long_queue_is_not_made_longer_by_what_is_queued(
    length: int,
    wakes: bool,
    services_for: OpenServices,
    request_dispatch: Request,
    raw: redis.Redis,
) -> None:
    services = await services_for(USHER_SWEEP_LIMIT="3")
    request_dispatch("dsp_queued", room_name="room-1")
    request_dispatch("dsp_flying", room_name="room-2")
    raw.hset("usher:dispatch:dsp_flying", "state", "dispatched")
    due(raw, "dsp_queued", "dsp_flying")
    raw.rpush("dispatch", *["message"] * length)

    assert ("dsp_queued" in await woken(services)) is wakes

    due(raw, "dsp_queued", "dsp_flying")
    assert "dsp_flying" in await woken(services)


@pytest.mark.parametrize("state", ["dispatched", "accepted"])
async def test_what_is_on_its_way_when_its_time_is_up_is_ended_though_nobody_verifies(
    state: str, services: Services, scenario: Scenario
) -> None:
    scenario.request_dispatch(deadline_ms=900)
    scenario.raw.hset(RECORD, "state", state)
    due(scenario.raw, "dsp_1")

    assert await woken(services) == []

    assert scenario.look().state is State.FAILED
    assert scenario.look().failure_reason == "join_timeout"
    assert scenario.look().updated_at_ms < scenario.look().deadline_at_ms


async def test_an_agent_that_is_there_when_the_time_is_up_is_joined_though_nobody_verifies(
    services: Services, scenario: Scenario
) -> None:
    await scenario.house.join_for(scenario.request_dispatch())
    soon_ms = scenario.look().read_at_ms + 900  # only now: joining takes its time
    scenario.raw.hset(RECORD, mapping={"state": "accepted", "deadline_at_ms": soon_ms})
    due(scenario.raw, "dsp_1")

    assert await woken(services) == []

    assert scenario.look().state is State.JOINED


async def test_the_sweep_gives_no_more_at_once_than_its_limit(
    services_for: OpenServices, request_dispatch: Request, raw: redis.Redis
) -> None:
    services = await services_for(USHER_SWEEP_LIMIT="2")
    for number in range(3):
        request_dispatch(f"dsp_{number}", room_name=f"room-{number}")
        due(raw, f"dsp_{number}")

    assert len(await woken(services)) == 2
    assert len(await woken(services)) == 1


async def test_what_nobody_ever_took_up_fails_in_time_although_the_queue_is_long(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_SWEEP_LIMIT="3")
    scenario.request_dispatch(deadline_ms=1900)
    due(scenario.raw, "dsp_1")
    scenario.raw.rpush("dispatch", *["message"] * 9)

    assert await woken(services) == []

    record = scenario.look()
    assert (record.state, record.failure_reason) == (State.FAILED, "dispatcher_unavailable")
    assert "workers" in record.failure_message
    assert record.updated_at_ms < record.deadline_at_ms
    assert listed(scenario.raw, "dsp_1") == []
    assert (
        counts(scenario.raw, "usher:metrics:dispatch:acme")["failures:dispatcher_unavailable"] == 1
    )


async def test_many_whose_time_is_up_are_ended_by_one_sweep(
    services_for: OpenServices, request_dispatch: Request, raw: redis.Redis
) -> None:
    services = await services_for(USHER_SWEEP_LIMIT="10")
    ids = [f"dsp_{number}" for number in range(40)]
    for number, dispatch_id in enumerate(ids):
        request_dispatch(dispatch_id, room_name=f"room-{number}", deadline_ms=1900)
    due(raw, *ids)

    assert await woken(services) == []

    states = [raw.hget(f"usher:dispatch:{dispatch_id}", "state") for dispatch_id in ids]
    assert states == ["failed"] * len(ids)


async def test_who_has_time_left_is_taken_at_the_pace_of_the_limit(
    services_for: OpenServices, request_dispatch: Request, raw: redis.Redis
) -> None:
    services = await services_for(USHER_SWEEP_LIMIT="10")
    ids = [f"dsp_{number}" for number in range(20)]
    for number, dispatch_id in enumerate(ids):
        # Four of ten have run out of time: too few to go on.
        deadline_ms = 1900 if number % 10 < 4 else 20_000
        request_dispatch(dispatch_id, room_name=f"room-{number}", deadline_ms=deadline_ms)
    raw.zadd("usher:due", {dispatch_id: number for number, dispatch_id in enumerate(ids)})

    await woken(services)

    states = [raw.hget(f"usher:dispatch:{dispatch_id}", "state") for dispatch_id in ids]
    assert states == ["failed"] * 4 + ["queued"] * 16


async def test_what_waited_fails_in_time_with_what_it_waited_for(
    services: Services, scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch(deadline_ms=1900)
    scenario.run(
        dispatches.advance(Advance(dispatch, state_machine.WAIT, due_in_s=0, fields=UNREACHABLE))
    )
    due(scenario.raw, "dsp_1")

    assert await woken(services) == []

    record = scenario.look()
    assert (record.state, record.failure_reason) == (State.FAILED, "livekit_unreachable")
    assert record.failure_message == "it was"
    assert listed(scenario.raw, "dsp_1") == []


@pytest.mark.parametrize("state", ["dispatching", "dispatched", "accepted", "joined"])
async def test_what_somebody_works_on_is_not_ended_by_the_sweep(
    state: str, services: Services, scenario: Scenario
) -> None:
    scenario.request_dispatch(deadline_ms=1900)
    scenario.raw.hset(RECORD, "state", state)
    due(scenario.raw, "dsp_1")

    assert await woken(services) == ["dsp_1"]
    assert scenario.look().state == state
    if state != "joined":  # and is looked at again before its deadline
        assert scenario.raw.zscore("usher:due", "dsp_1") < scenario.look().deadline_at_ms - 500


async def test_what_a_dead_worker_has_left_at_its_deadline_is_ended_before_its_lease(
    services: Services, scenario: Scenario
) -> None:
    scenario.request_dispatch(deadline_ms=900)
    scenario.raw.hset(RECORD, "state", "dispatching")
    due(scenario.raw, "dsp_1")

    assert await woken(services) == []

    record = scenario.look()
    assert (record.state, record.failure_reason) == (State.FAILED, "dispatcher_unavailable")
    assert record.updated_at_ms < record.deadline_at_ms


@pytest.mark.parametrize(("field", "value"), [("state", "nonsense"), ("generation", "many")])
async def test_an_unreadable_record_is_parked_and_holds_nobody_up(
    field: str, value: str, services: Services, request_dispatch: Request, raw: redis.Redis
) -> None:
    for number in (1, 2):
        request_dispatch(f"dsp_{number}", room_name=f"room {number}: ünï")
    raw.hset(RECORD, field, value)
    assert len(live := [key for key in raw.keys("usher:live:*") if raw.get(key) == "dsp_1"]) == 1
    for key in ("usher:due", "usher:leases", "usher:waiting"):
        raw.zadd(key, {"dsp_1": 1})
    due(raw, "dsp_2")
    record = raw.hgetall(RECORD)

    assert await woken(services) == ["dsp_2"]

    assert listed(raw, "dsp_1") == []
    parked = await services.ledger.run(reports.parked())
    assert list(parked) == ["dsp_1"]
    assert "Error: " in parked["dsp_1"]
    assert list(keyspace(raw)["usher:parked"]) == ["dsp_1"]
    assert "dsp_1" not in keyspace(raw)["usher:sessions:acme"]
    assert raw.hgetall(RECORD) == record  # for whoever looks into it
    assert not raw.exists(*live)  # the next request for that room is served
    assert len(raw.keys("usher:live:*")) == 1


async def test_what_is_no_record_at_all_is_parked_and_holds_nobody_up(
    services: Services, scenario: Scenario
) -> None:
    for number in (1, 2):
        scenario.request_dispatch(f"dsp_{number}", room_name=f"room-{number}")
        due(scenario.raw, f"dsp_{number}")
    scenario.raw.delete(RECORD)
    scenario.raw.set(RECORD, "somebody's own")
    scenario.raw.zadd("usher:waiting", {"dsp_1": 1})
    scenario.run(reports.report_agent_server(a_server(), ttl_s=60))

    assert await woken(services) == ["dsp_2"]
    scenario.raw.zadd("usher:waiting", {"dsp_1": 1})
    assert await wake_waiting.waiting_for(services) == []

    assert "it is no record: WRONGTYPE" in (await services.ledger.run(reports.parked()))["dsp_1"]
    assert listed(scenario.raw, "dsp_1") == []
    assert scenario.raw.get(RECORD) == "somebody's own"


async def test_an_unreadable_record_that_waits_for_room_is_parked_too(
    services: Services, scenario: Scenario
) -> None:
    scenario.run(
        dispatches.advance(Advance(scenario.request_dispatch(), state_machine.WAIT, due_in_s=0))
    )
    scenario.raw.hset(RECORD, "generation", "many")
    scenario.run(reports.report_agent_server(a_server(), ttl_s=60))

    assert await wake_waiting.waiting_for(services) == []

    parked = await services.ledger.run(reports.parked())
    assert list(parked) == ["dsp_1"]
    assert listed(scenario.raw, "dsp_1") == []


async def test_an_id_without_a_record_is_forgotten(services: Services, raw: redis.Redis) -> None:
    before = keyspace(raw)
    for key in ("usher:due", "usher:leases", "usher:waiting"):
        raw.zadd(key, {"dsp_gone": 1})

    assert await woken(services) == []

    found = keyspace(raw)
    del found["usher:leases:looked_at"]
    assert found == before


async def test_who_has_much_that_is_due_does_not_hold_the_others_up(
    services_for: OpenServices, request_dispatch: Request, raw: redis.Redis
) -> None:
    services = await services_for(USHER_SWEEP_LIMIT="4")
    (acme,) = services.clients.clients
    globex = replace(acme, client_id="globex")
    services = replace(services, clients=ClientRegistry(clients=(acme, globex)))
    for number in range(20):
        request_dispatch(f"dsp_a{number}", room_name=f"room-{number}")
    request_dispatch("dsp_b", client_id="globex")
    raw.zadd("usher:due", {f"dsp_a{number}": number for number in range(20)} | {"dsp_b": 100})

    assert await woken(services) == ["dsp_a0", "dsp_b", "dsp_a1", "dsp_a2"]
    assert await woken(services) == ["dsp_a3", "dsp_a4", "dsp_a5", "dsp_a6"]


async def test_who_waits_for_an_agent_server_costs_a_message_only_when_something_is_new(
    services: Services, no_agent_server: Callable[[], None], scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch()
    fields = {"failure_reason": "no_agent_online", "failure_message": "none is"}
    scenario.run(
        dispatches.advance(Advance(dispatch, state_machine.WAIT, fields=fields, due_in_s=1))
    )
    no_agent_server()
    scenario.run(reports.report_alive("livekit:acme", ttl_s=60))
    due(scenario.raw, "dsp_1")

    assert await woken(services) == []
    assert scenario.raw.zscore("usher:due", "dsp_1") > scenario.run(reports.ping())

    due(scenario.raw, "dsp_1")
    scenario.run(reports.report_alive("livekit:acme", ttl_s=0))  # is that still the reason?
    assert await woken(services) == ["dsp_1"]

    due(scenario.raw, "dsp_1")
    scenario.run(reports.report_alive("livekit:acme", ttl_s=60))
    scenario.run(reports.report_agent_server(a_server(used_slots=4), ttl_s=60))
    assert await woken(services) == ["dsp_1"]  # one is online now, but full: another reason

    due(scenario.raw, "dsp_1")
    scenario.run(reports.report_agent_server(a_server(), ttl_s=60))
    assert await woken(services) == ["dsp_1"]  # and now it has room
