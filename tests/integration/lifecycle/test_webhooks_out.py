"""Does every ending reach the client's own server, at least once, always with the same id?

Real Redis, a real HTTP receiver; the sweeper's step and the task's coroutine are called as a worker
calls them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import pytest
import pytest_asyncio
import redis

from dispatcher.clients.client_registry import ClientRegistry
from dispatcher.domain import models, state_machine
from dispatcher.domain.models import Dispatch, RememberedDispatch, State
from dispatcher.ledger import dispatches, outbox, reports, restoring
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.client import Ledger
from dispatcher.lifecycle import client_limits, sweeping, webhook_delivery
from dispatcher.lifecycle.services import Services
from dispatcher.lifecycle.webhook_http import NotDelivered, Receivers
from dispatcher.worker import heartbeat
from tests.support.house import OpenServices, Request
from tests.support.receiver import SECRET, Receiver, receiving
from tests.support.scenario import Scenario
from tests.support.sockets import listening
from tests.support.values import counts, eventually, keyspace

OUTBOX, DEAD = "usher:outbox:acme", "usher:dead_events:acme"
METRICS = "usher:metrics:dispatch:acme"
JOINED_ID = "msg_1_1_joined"


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving(Receiver()) as opened:
        yield opened


@pytest_asyncio.fixture
async def telling(services_for: OpenServices, receiver: Receiver, store: Ledger) -> Services:
    """A worker's services; `acme` wants events at the receiver, two waits of no time."""
    store.run(outbox.want_events(["acme"]))
    return await services_for(
        USHER_WEBHOOK_URL=receiver.url,
        USHER_WEBHOOK_SECRET=SECRET,
        USHER_WEBHOOK_ALLOW_PRIVATE="true",
        USHER_WEBHOOK_WAITS_S="0,0",
    )


async def deliver_due(services: Services) -> list[str]:
    """One sweep, and what came of each delivery."""
    found = await sweeping.sweep_all(services)
    ids = [each.event_id for each in found if isinstance(each, outbox.DueEvent)]
    return [await webhook_delivery.deliver(services, event_id) for event_id in ids]


def join(store: Ledger, dispatch: Dispatch) -> None:
    fields = {"agent_identity": "agent-1", "joined_at_ms": "5", "time_to_join_ms": "300"}
    store.run(dispatches.advance(Advance(dispatch, state_machine.DISPATCH_STARTED)))
    store.run(
        dispatches.advance(
            Advance(dispatch, state_machine.JOINED, fields=fields, times=Times(lease_s=60))
        )
    )


@pytest.mark.parametrize(
    ("transition", "event"),
    [
        (state_machine.FAILED, "dispatch.failed"),
        (state_machine.NOBODY_CAME, "dispatch.cancelled"),
        (state_machine.ROOM_OVER, "dispatch.ended"),
    ],
)
async def test_joining_and_every_ending_is_told_and_verifies(
    transition: models.Transition,
    event: str,
    telling: Services,
    receiver: Receiver,
    scenario: Scenario,
) -> None:
    dispatch = scenario.request_dispatch(agent_metadata="canary of the client", container="box")
    join(scenario.store, dispatch)
    assert await deliver_due(telling) == ["delivered"]
    scenario.run(
        dispatches.advance(Advance(dispatch, transition, fields={"failure_reason": "why"}))
    )
    assert await deliver_due(telling) == ["delivered"]

    joined, ended = receiver.events()
    record = scenario.run(dispatches.read("dsp_1"))
    assert record is not None
    assert joined["type"] == "dispatch.joined"
    assert joined["data"] == {
        "dispatch_id": "dsp_1",
        "state": "joined",
        "generation": 1,
        "room_name": dispatch.room_name,
        "agent_name": dispatch.agent_name,
        "container": "box",
        "agent_identity": "agent-1",
        "created_at_ms": record.created_at_ms,
        "deadline_at_ms": record.deadline_at_ms,
        "joined_at_ms": 5,
        "time_to_join_ms": 300,
    }
    assert (ended["type"], ended["data"]["failure_reason"]) == (event, "why")
    assert "canary" not in str(receiver.got[0][1]) + str(receiver.got[1][1])
    found = keyspace(scenario.raw)
    assert not [key for key in found if key.startswith(("usher:event:", "usher:outbox:"))]
    assert counts(scenario.raw, METRICS)["webhooks_delivered"] == 2


async def test_a_change_that_ends_nothing_is_not_told(
    telling: Services, scenario: Scenario
) -> None:
    dispatch = scenario.request_dispatch()
    join(scenario.store, dispatch)
    scenario.raw.delete(OUTBOX)
    scenario.run(dispatches.advance(Advance(dispatch, state_machine.AGENT_ADOPTED)))  # only noted
    scenario.run(
        dispatches.advance(
            Advance(dispatch, state_machine.AGENT_LOST, times=Times(deadline_in_s=20))
        )
    )

    assert await deliver_due(telling) == []


async def test_a_client_without_a_webhook_costs_nothing(
    services: Services, scenario: Scenario
) -> None:
    join(scenario.store, scenario.request_dispatch())

    assert await sweeping.sweep_all(services) == await sweeping.sweep(services)
    assert not [key for key in keyspace(scenario.raw) if "event" in key or "outbox" in key]


async def test_a_dispatch_that_was_superseded_while_nobody_knew_it_is_told(
    telling: Services, receiver: Receiver, request_dispatch: Request, store: Ledger
) -> None:
    other = request_dispatch("dsp_2")
    store.run(
        restoring.restore(
            RememberedDispatch(
                dispatch_id="dsp_1",
                client_id="acme",
                room_name=other.room_name,
                agent_name=other.agent_name,
                generation=1,
                state=State.DELEGATED,
                container="",
                agent_metadata="canary",
                age_ms=5,
                deadline_ms=20_000,
            ),
            by="test",
            retention_s=60,
        )
    )

    assert await deliver_due(telling) == ["delivered"]

    (event,) = receiver.events()
    assert (event["type"], event["data"]["failure_reason"]) == ("dispatch.cancelled", "superseded")


async def test_after_errors_it_is_tried_again_with_the_same_id(
    telling: Services, receiver: Receiver, request_dispatch: Request, store: Ledger
) -> None:
    receiver.answers = [500, 503]
    join(store, request_dispatch())

    results = [(await deliver_due(telling))[0] for _ in range(3)]

    assert results == ["again in 0 s: answered 500", "again in 0 s: answered 503", "delivered"]
    assert receiver.ids == [JOINED_ID] * 3
    assert len({body for _, body in receiver.got}) == 1
    assert len(receiver.events()) == 3  # each verifies
    assert await deliver_due(telling) == []


async def test_a_failed_try_waits_as_long_as_the_list_says(
    services_for: OpenServices, receiver: Receiver, scenario: Scenario
) -> None:
    scenario.run(outbox.want_events(["acme"]))
    services = await services_for(
        USHER_WEBHOOK_URL=receiver.url,
        USHER_WEBHOOK_SECRET=SECRET,
        USHER_WEBHOOK_ALLOW_PRIVATE="true",
        USHER_WEBHOOK_WAITS_S="40",
    )
    receiver.answers = [500]
    join(scenario.store, scenario.request_dispatch())

    assert await deliver_due(services) == ["again in 40 s: answered 500"]

    due_in_s = scenario.raw.zscore(OUTBOX, JOINED_ID) / 1000 - time.time()
    assert 34 < due_in_s < 45
    assert await deliver_due(services) == []


async def test_after_the_last_try_it_is_dead_shown_and_can_be_sent_again(
    telling: Services, receiver: Receiver, scenario: Scenario
) -> None:
    receiver.answers = [500, 500, 500]
    join(scenario.store, scenario.request_dispatch())
    results = [(await deliver_due(telling))[0] for _ in range(3)]
    assert results[-1] == "given up: answered 500"
    assert await deliver_due(telling) == []

    (event,) = scenario.run(outbox.dead("acme"))
    assert (event.event_id, event.tries, event.error) == (JOINED_ID, 3, "answered 500")
    metrics = counts(scenario.raw, METRICS)
    assert (metrics["webhooks_dead"], metrics["webhook_failures"]) == (1, 3)
    assert scenario.run(outbox.resend("acme", "msg_of_nobody")) == 0
    assert scenario.run(outbox.resend("acme", JOINED_ID)) == 1

    assert await deliver_due(telling) == ["delivered"]
    assert receiver.ids == [JOINED_ID] * 4
    assert scenario.run(outbox.dead("acme")) == []


async def test_of_the_dead_only_so_many_are_kept(telling: Services, scenario: Scenario) -> None:
    scenario.raw.rpush(DEAD, *(["{}"] * outbox.DEAD_MAX))
    join(scenario.store, scenario.request_dispatch())
    event = scenario.run(outbox.read(JOINED_ID))
    assert event is not None

    scenario.run(outbox.bury(event, error="x"))

    assert scenario.raw.llen(DEAD) == outbox.DEAD_MAX
    assert JOINED_ID in scenario.raw.lindex(DEAD, 0)


async def test_a_receiver_that_is_gone_for_good_is_not_asked_again(
    telling: Services, receiver: Receiver, request_dispatch: Request, store: Ledger
) -> None:
    receiver.answers = [410]
    join(store, request_dispatch())

    assert await deliver_due(telling) == ["given up: answered 410"]


async def test_a_redirect_is_no_delivery_and_is_not_followed(
    telling: Services, receiver: Receiver, request_dispatch: Request, store: Ledger
) -> None:
    receiver.answers = [307]
    join(store, request_dispatch())

    assert await deliver_due(telling) == ["again in 0 s: answered 307"]
    assert len(receiver.got) == 1


async def test_a_delivery_whose_worker_died_is_made_by_another_with_the_same_id(
    telling: Services, receiver: Receiver, scenario: Scenario
) -> None:
    join(scenario.store, scenario.request_dispatch())
    taken = await sweeping.sweep_all(telling)
    assert [each.event_id for each in taken if isinstance(each, outbox.DueEvent)] == [JOINED_ID]
    # Whoever was told is dead. Nobody else takes it for a while; then it is due again.
    assert await deliver_due(telling) == []
    assert (
        scenario.raw.zscore(OUTBOX, JOINED_ID) / 1000 - time.time() < webhook_delivery.CLAIM_S + 1
    )
    scenario.raw.zadd(OUTBOX, {JOINED_ID: 1})

    assert await deliver_due(telling) == ["delivered"]
    assert receiver.ids == [JOINED_ID]
    assert await webhook_delivery.deliver(telling, JOINED_ID) == "settled already"


async def test_a_receiver_that_hangs_holds_a_few_deliveries_and_no_other_clients(
    telling: Services, scenario: Scenario
) -> None:
    async with receiving(Receiver(hangs=True)) as slow, receiving(Receiver()) as quick:
        (acme,) = telling.clients.clients
        both = (
            replace(acme, webhook_url=slow.url),
            replace(acme, client_id="other", webhook_url=quick.url),
        )
        services = replace(telling, clients=ClientRegistry(clients=both))
        scenario.run(outbox.want_events(["acme", "other"]))
        for number in range(20):
            join(
                scenario.store,
                scenario.request_dispatch(f"dsp_{number}", room_name=f"room-{number}"),
            )
        join(
            scenario.store,
            scenario.request_dispatch("dsp_other", client_id="other", room_name="room-other"),
        )

        due = await webhook_delivery.due(services)
        running = [asyncio.create_task(webhook_delivery.deliver(services, d.event_id)) for d in due]
        others = 1 + webhook_delivery.CLAIM_LIMIT - client_limits.CLIENT_SLOTS
        await eventually(
            lambda: (
                sum(t.done() for t in running) >= others
                and len(slow.got) >= client_limits.CLIENT_SLOTS
            )
        )
        done, hanging = await asyncio.wait(running, timeout=0.2)

        assert sorted(task.result() for task in done) == ["delivered"] + [
            "waits for the client's other events"
        ] * (webhook_delivery.CLAIM_LIMIT - client_limits.CLIENT_SLOTS)
        assert len(hanging) == client_limits.CLIENT_SLOTS == len(slow.got)
        assert quick.ids == ["msg_other_1_joined"]
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)


@pytest.mark.parametrize("allow_private", [False, True], ids=["in production", "in development"])
async def test_what_stands_for_a_private_address_is_not_connected_to(allow_private: bool) -> None:
    connected = []

    async def note(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        connected.append(await reader.read(1))

    receivers = Receivers(allow_private=allow_private)
    try:
        async with listening(note) as port:
            # A name to us and to aiohttp; only the resolver sees an address in it, and that is
            # looked at as it is connected to.
            with pytest.raises(NotDelivered) as caught:
                await receivers.post(f"https://0x7f000001:{port}/", "{}", {})
    finally:
        await receivers.aclose()
    assert ("no public address" in str(caught.value)) != allow_private
    assert len(connected) == allow_private


@pytest.mark.parametrize("allow_private", [False, True])
async def test_numbers_that_are_an_address_in_disguise_are_not_connected_to(
    allow_private: bool,
) -> None:
    receivers = Receivers(allow_private=allow_private)
    try:
        for host in ("2130706433", "127.1", "0177.0.0.1"):
            with pytest.raises(NotDelivered):
                await receivers.post(f"https://{host}:1/", "{}", {})
    finally:
        await receivers.aclose()


@pytest.fixture(autouse=True)
def _no_secret_is_logged(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert SECRET not in caplog.text
    assert "token=canary" not in caplog.text


@pytest.mark.parametrize(("url", "wanting"), [("https://example.com/", {"acme"}), ("", set())])
async def test_the_heartbeat_tells_the_ledger_who_wants_events(
    url: str, wanting: set[str], services_for: OpenServices, raw: redis.Redis
) -> None:
    now_ms = raw.time()[0] * 1000
    raw.zadd("usher:events_wanted", {"of another worker": now_ms, "of none for a day": 1})
    services = await services_for(USHER_WEBHOOK_URL=url, USHER_WEBHOOK_SECRET=SECRET)
    beating = asyncio.create_task(heartbeat.beat(services, []))

    wanted = wanting | {"of another worker"}
    await eventually(lambda: set(raw.zrange("usher:events_wanted", 0, -1)) == wanted)

    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)


def test_workers_that_know_other_clients_take_nobodys_events_away(
    store: Ledger, request_dispatch: Request, raw: redis.Redis
) -> None:
    for client_ids in (["acme"], ["other"], []):  # three files of clients, in an upgrade
        store.run(outbox.want_events(client_ids))

    join(store, request_dispatch())

    assert raw.zcard("usher:outbox:acme") == 1


async def test_an_event_that_is_claimed_anew_is_left_to_its_next_message(
    telling: Services, receiver: Receiver, request_dispatch: Request, store: Ledger
) -> None:
    join(store, request_dispatch())
    [due] = await webhook_delivery.due(telling)
    now_ms = store.run(reports.ping())
    assert now_ms < due.good_till_ms <= now_ms + webhook_delivery.CLAIM_S * 1000

    await webhook_delivery.deliver(telling, due.event_id, good_till_ms=now_ms - 1)
    assert receiver.ids == []
    await webhook_delivery.deliver(telling, due.event_id, good_till_ms=due.good_till_ms)
    assert receiver.ids == [due.event_id]
