"""How many dispatches are on their way to an agent at once, and how many may be?"""

from __future__ import annotations

import redis

from dispatcher.domain import models, state_machine
from dispatcher.domain.models import Dispatch, State
from dispatcher.ledger import admission, dispatches, leases, reports
from dispatcher.ledger.admission import InFlight
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.dispatches import Advanced
from tests.support.values import AGENT_NAME, WAIT_S, a_server, new_dispatch

ON_THEIR_WAY = f"usher:inflight:acme:{AGENT_NAME}"
WINDOW = f"usher:window:acme:{AGENT_NAME}"


def requested(store: Ledger, number: int) -> Dispatch:
    new = new_dispatch(f"dsp_{number}", room_name=f"room-{number}")
    store.run(dispatches.create(new, due_in_s=2.0, detail={}))
    return read(store, number)


def read(store: Ledger, number: int) -> Dispatch:
    dispatch = store.run(dispatches.read(f"dsp_{number}"))
    assert dispatch is not None
    return dispatch


def start(store: Ledger, number: int, *, free_slots: int | None) -> Advanced:
    step = dispatches.advance(
        Advance(
            requested(store, number),
            state_machine.DISPATCH_STARTED,
            due_in_s=12,
            inflight=admission.start(free_slots),
        )
    )
    return store.run(step)


def move(store: Ledger, number: int, transition: models.Transition, what: InFlight) -> Advanced:
    step = dispatches.advance(Advance(read(store, number), transition, due_in_s=2, inflight=what))
    return store.run(step)


def test_no_more_are_sent_than_there_are_free_slots(store: Ledger) -> None:
    assert [start(store, number, free_slots=2).outcome for number in range(3)] == [
        "moved",
        "moved",
        "full",
    ]

    assert read(store, 2).state is State.QUEUED
    assert store.run(leases.on_their_way("acme", AGENT_NAME)) == (2, None)


def test_where_nobody_reports_slots_nothing_is_held_back(store: Ledger) -> None:
    assert [start(store, number, free_slots=None).moved for number in range(3)] == [True] * 3


def test_one_that_is_given_up_makes_room_and_one_that_is_dispatched_does_not(
    store: Ledger,
) -> None:
    start(store, 1, free_slots=1)
    move(store, 1, state_machine.DISPATCH_CREATED, admission.SENT)
    assert start(store, 2, free_slots=1).outcome == "full"

    move(store, 1, state_machine.NEXT_GENERATION, admission.NOT_IN_FLIGHT)

    assert start(store, 3, free_slots=1).moved


def test_one_that_was_claimed_has_a_slot_of_its_agent_servers_report(store: Ledger) -> None:
    store.run(
        reports.report_agent_server(a_server(slots=4, used_slots=1, takes=3, starts=2), ttl_s=60)
    )
    start(store, 1, free_slots=1)
    claim = dispatches.advance(
        Advance(
            read(store, 1),
            state_machine.ACCEPTED,
            fields={"agent_server_id": "server-1", "job_id": "AJ_1"},
            inflight=admission.CLAIMED,
        )
    )

    assert store.run(claim).moved

    assert store.run(reports.agent_servers()) == [
        a_server(slots=4, used_slots=2, takes=2, starts=1)
    ]
    assert store.run(leases.on_their_way("acme", AGENT_NAME)) == (0, None)


def test_after_a_drop_half_as_many_are_sent_and_one_more_for_each_that_arrives(
    store: Ledger, raw: redis.Redis
) -> None:
    for number in range(20):
        start(store, number, free_slots=40)
    assert not raw.exists(WINDOW)

    move(store, 0, state_machine.NEXT_GENERATION, admission.DROPPED)
    assert store.run(leases.on_their_way("acme", AGENT_NAME)) == (19, 10)
    assert 0 < raw.ttl(WINDOW) <= admission.WINDOW_S
    assert start(store, 20, free_slots=40).outcome == "paced"

    move(store, 7, state_machine.ACCEPTED, admission.CLAIMED)
    assert store.run(leases.on_their_way("acme", AGENT_NAME)) == (18, 11)
    raw.delete(ON_THEIR_WAY)
    assert [start(store, number, free_slots=40).moved for number in range(21, 33)] == [
        *[True] * 11,
        False,
    ]


def test_a_few_are_always_sent(store: Ledger) -> None:
    start(store, 0, free_slots=40)

    move(store, 0, state_machine.NEXT_GENERATION, admission.DROPPED)

    assert store.run(leases.on_their_way("acme", AGENT_NAME)) == (0, admission.LEAST_WINDOW)


def test_an_arrival_tells_those_who_wait_that_there_is_room(
    store: Ledger, raw: redis.Redis
) -> None:
    with raw.pubsub(ignore_subscribe_messages=True) as news:
        news.subscribe("usher:capacity")
        news.get_message(timeout=WAIT_S)
        start(store, 1, free_slots=1)
        move(store, 1, state_machine.ACCEPTED, admission.CLAIMED)
        assert news.get_message(timeout=0.1) is None  # nobody waits

        requested(store, 2)
        move(store, 2, state_machine.WAIT, admission.NOT_IN_FLIGHT)
        start(store, 3, free_slots=9)
        move(store, 3, state_machine.ACCEPTED, admission.CLAIMED)

        told = news.get_message(timeout=WAIT_S)
        assert told is not None
        assert told["data"] == AGENT_NAME
