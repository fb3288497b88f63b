"""Does a dispatch wait where LiveKit would drop it, and who goes on when there is room?"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import pytest
import redis

from dispatcher.domain import state_machine
from dispatcher.domain.models import State
from dispatcher.ledger import dispatches, leases, reports
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.client import Ledger
from dispatcher.lifecycle import dispatching, precedence, wake_waiting
from tests.support.house import House, OpenServices, Request
from tests.support.scenario import Scenario
from tests.support.values import (
    AGENT_NAME,
    UNREACHABLE,
    WAIT_S,
    a_server,
    eventually,
    keyspace,
    new_dispatch,
)

CHANNEL = "usher:capacity"


def waiting(store: Ledger, raw: redis.Redis, number: int, **changes: Any) -> str:
    """A dispatch that waits, the more urgently the smaller its number is; its id."""
    dispatch_id = f"dsp_{number}"
    new = new_dispatch(dispatch_id, **{"room_name": f"room-{number}", **changes})
    store.run(dispatches.create(new, due_in_s=0, detail={}))
    dispatch = store.run(dispatches.read(dispatch_id))
    assert dispatch is not None
    store.run(dispatches.advance(Advance(dispatch, state_machine.WAIT, due_in_s=0)))
    assert dispatch_id in keyspace(raw)["usher:waiting"]
    raw.zadd("usher:waiting", {dispatch_id: number}, xx=True)
    return dispatch_id


def heard(channel: Any, raw: redis.Redis) -> list[str]:
    """What has been published by now."""
    found = []
    raw.publish(CHANNEL, "that is all")
    while (message := channel.get_message(timeout=WAIT_S))["data"] != "that is all":
        found.append(message["data"])
    return found


def nobody_has_come(raw: redis.Redis, dispatch_id: str) -> None:
    """As supervision leaves a session that has lost its agent and that no person has entered."""
    raw.hset(f"usher:dispatch:{dispatch_id}", "unattended", "1")


async def test_who_has_nobody_waits_behind_those_who_have_a_caller(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for()
    scenario.run(reports.report_agent_server(a_server(used_slots=3), ttl_s=60))  # one slot is free
    scenario.request_dispatch()
    nobody_has_come(scenario.raw, "dsp_1")
    caller = waiting(scenario.store, scenario.raw, 2)

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.WAITING

    assert scenario.look().failure_reason == "no_capacity"
    assert "1 session(s) with a caller" in scenario.look().failure_message
    scenario.raw.zadd("usher:waiting", {"dsp_1": 1}, xx=True)  # it has waited longer
    picked = scenario.run(leases.pick_waiting(limit=9, push_s=2.0))
    assert picked == [caller, "dsp_1"]
    assert [each.dispatch_id for each in await wake_waiting.waiting_for(services)] == [caller]
    # A person who enters makes it a session like any other.
    person = await scenario.house.join("person", agent=False)
    assert (
        await precedence.why_behind(
            services, scenario.look(), scenario.run(reports.agent_servers())
        )
        is None
    )
    await person.disconnect()
    # With one slot more there is one for it, too.
    scenario.run(reports.report_agent_server(a_server(used_slots=2), ttl_s=60))
    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED


@pytest.mark.parametrize(
    "changes",
    [
        {"agent_name": "another-agent"},
        {"container": "box-2"},
        {"client_id": "globex"},
    ],
    ids=["another agent's", "in another container", "of a client whose servers are others"],
)
async def test_nobody_waits_behind_those_who_want_other_agent_servers(
    changes: dict[str, str], services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for()
    scenario.run(reports.report_agent_server(a_server(used_slots=3, client_id="acme"), ttl_s=60))
    scenario.request_dispatch()
    nobody_has_come(scenario.raw, "dsp_1")
    waiting(scenario.store, scenario.raw, 2, **changes)

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED


async def test_nobody_waits_behind_those_whose_livekit_is_away(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for()
    scenario.run(reports.report_agent_server(a_server(used_slots=3), ttl_s=60))
    scenario.request_dispatch()
    nobody_has_come(scenario.raw, "dsp_1")
    other = waiting(scenario.store, scenario.raw, 2, client_id="globex")
    scenario.raw.hset(f"usher:dispatch:{other}", mapping=UNREACHABLE)

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED


@pytest.mark.parametrize(
    ("report", "reason"),
    [
        (None, "no_agent_online"),
        ({"draining": True}, "no_agent_online"),
        ({"agent_name": "another-agent"}, "no_agent_online"),
        ({"used_slots": 4}, "no_capacity"),
    ],
    ids=["none", "draining", "another agent's", "full"],
)
async def test_what_no_agent_server_can_take_waits_with_the_true_reason_and_is_not_sent(
    report: dict[str, Any] | None, reason: str, services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for()
    if report is not None:
        scenario.run(reports.report_agent_server(a_server(**report), ttl_s=60))
    requested_at_ms = scenario.request_dispatch().requested_at_ms

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.WAITING

    record = scenario.look()
    assert (record.state, record.generation) == (State.WAITING, 2)
    assert record.failure_reason == reason
    assert record.failure_message
    assert await scenario.house.dispatches() == []
    found = keyspace(scenario.raw)
    assert found["usher:waiting"] == {"dsp_1": requested_at_ms}
    assert found["usher:due"]["dsp_1"] <= record.updated_at_ms + 1000


@pytest.mark.parametrize(
    ("slots", "window", "reason"), [(1, None, "no_capacity"), (4, 1, "join_timeout")]
)
async def test_what_waits_for_others_on_their_way_tells_slots_that_are_promised_from_dropped_jobs(
    slots: int, window: int | None, reason: str, services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for()
    scenario.run(reports.report_agent_server(a_server(slots=slots, used_slots=0), ttl_s=60))
    scenario.raw.zadd(
        f"usher:inflight:acme:{AGENT_NAME}", {"dsp_other": scenario.run(reports.ping()) + 9000}
    )
    if window is not None:
        scenario.raw.set(f"usher:window:acme:{AGENT_NAME}", window)
    scenario.request_dispatch()

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.WAITING

    assert scenario.look().failure_reason == reason
    assert await scenario.house.dispatches() == []


async def test_an_agent_whose_servers_report_nothing_is_sent_all_the_same(
    services_for: OpenServices, request_dispatch: Request, house: House
) -> None:
    services = await services_for(USHER_UNFENCED_AGENTS=f"another, {AGENT_NAME}")
    request_dispatch()

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED

    assert await house.generations() == [("dsp_1", "1")]


async def test_what_waits_is_sent_when_an_agent_server_has_room(
    services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for()
    scenario.request_dispatch()
    await dispatching.dispatch_agent(services, "dsp_1")
    scenario.run(reports.report_agent_server(a_server(), ttl_s=60))

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED

    assert await scenario.house.generations() == [("dsp_1", "2")]
    assert "usher:waiting" not in keyspace(scenario.raw)


def test_the_clients_are_picked_in_turn_each_ones_oldest_first(
    store: Ledger, raw: redis.Redis
) -> None:
    for number in (3, 1, 2):
        waiting(store, raw, number)
    for number in (5, 4):
        waiting(store, raw, number, client_id="globex")

    picked = store.run(leases.pick_waiting(limit=9, push_s=30))

    assert picked == ["dsp_1", "dsp_4", "dsp_2", "dsp_5", "dsp_3"]


@pytest.mark.parametrize("limit", [0, 1, 2, 4])
def test_no_more_are_picked_than_the_limit(limit: int, store: Ledger, raw: redis.Redis) -> None:
    clients = ("acme", "globex", "initech")
    ids = [waiting(store, raw, number, client_id=clients[number % 3]) for number in range(6)]

    assert store.run(leases.pick_waiting(limit=limit, push_s=30)) == ids[:limit]


def test_what_is_picked_is_not_woken_by_the_sweeper_too(store: Ledger, raw: redis.Redis) -> None:
    for number in (1, 2):
        waiting(store, raw, number)
    before, before_ms = keyspace(raw), store.run(reports.ping())

    store.run(leases.pick_waiting(limit=1, push_s=10))

    found, after_ms = keyspace(raw), store.run(reports.ping())
    assert before_ms + 10_000 <= found["usher:due"].pop("dsp_1") <= after_ms + 10_000
    before["usher:due"].pop("dsp_1")
    assert found == before


def test_an_id_without_a_record_is_not_picked_and_forgotten(
    store: Ledger, raw: redis.Redis
) -> None:
    raw.zadd("usher:waiting", {"dsp_gone": 0})
    waiting(store, raw, 1)

    assert store.run(leases.pick_waiting(limit=9, push_s=30)) == ["dsp_1"]
    assert list(keyspace(raw)["usher:waiting"]) == ["dsp_1"]


def test_a_server_with_room_is_told_of_only_while_dispatches_wait(
    store: Ledger, raw: redis.Redis
) -> None:
    with raw.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(CHANNEL)
        channel.get_message(timeout=5)
        store.run(reports.report_agent_server(a_server(), ttl_s=60))
        assert heard(channel, raw) == []
        waiting(store, raw, 1)
        store.run(reports.report_agent_server(a_server(used_slots=4), ttl_s=60))
        store.run(reports.report_agent_server(a_server(draining=True), ttl_s=60))
        store.run(reports.report_agent_server(a_server(), ttl_s=0))
        assert heard(channel, raw) == []
        store.run(reports.report_agent_server(a_server(), ttl_s=60))
        assert heard(channel, raw) == [AGENT_NAME]


async def test_no_more_of_those_that_wait_are_woken_than_there_are_free_slots(
    services_for: OpenServices, store: Ledger, raw: redis.Redis
) -> None:
    services = await services_for()
    for number in range(6):
        waiting(store, raw, number)
    assert await wake_waiting.waiting_for(services) == []
    store.run(reports.report_agent_server(a_server(used_slots=3), ttl_s=60))
    store.run(reports.report_agent_server(a_server("server-2", used_slots=2), ttl_s=60))

    woken = await wake_waiting.waiting_for(services)

    assert [wake_up.dispatch_id for wake_up in woken] == ["dsp_0", "dsp_1", "dsp_2"]


async def test_a_worker_wakes_those_that_wait_as_soon_as_a_server_reports_room(
    services_for: OpenServices, store: Ledger, raw: redis.Redis
) -> None:
    services = await services_for()
    waiting(store, raw, 1)
    raw.delete("dispatch")  # the message of its beginning
    listening = asyncio.create_task(wake_waiting.listen(services))
    await eventually(lambda: raw.pubsub_numpat() > 0)

    store.run(reports.report_agent_server(a_server(), ttl_s=60))

    (message,) = await eventually(lambda: raw.lrange("dispatch", 0, -1))
    assert "dsp_1" in message
    listening.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await listening
