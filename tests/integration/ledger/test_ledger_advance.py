"""Does every change of state write exactly what the table says, or nothing at all?

Every transition is carried out from every state, and everything that is in Redis is compared.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import redis

from dispatcher.domain import state_machine
from dispatcher.domain.metrics import OPEN_STATES, AgentCounts
from dispatcher.domain.models import TERMINAL, DispatchRef, State, Transition
from dispatcher.ledger import dispatches, reports
from dispatcher.ledger.advance import Advance, Provided, Times
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.dispatches import Advanced
from tests.support.values import AGENT_NAME, counters, keyspace, new_dispatch

RECORD, ATTEMPTS = "usher:dispatch:dsp_1", "usher:dispatch:dsp_1:attempts"
TIMELINE, LIVE = "usher:dispatch:dsp_1:timeline", f"usher:live:acme:{AGENT_NAME}:room-1"
COUNTERS = "usher:metrics:agent:acme:box-1:agent"
SESSIONS = "usher:sessions:acme"
REF = DispatchRef(
    dispatch_id="dsp_1", client_id="acme", room_name="room-1", agent_name=AGENT_NAME, generation=1
)
# Of no other state a record can be on the list of leases.
LEASED = frozenset({State.ACCEPTED, State.DELEGATED, State.JOINED, State.LEAVING, *TERMINAL})
OF_ATTEMPT = {
    "job_id": "AJ_0",
    "livekit_dispatch_id": "AD_0",
    "agent_server_id": "server-0",
    "agent_container": "box-0",
    "agent_identity": "agent-0",
    "joined_at_ms": "5",
    "time_to_join_ms": "6",
    "failure_reason": "join_timeout",
    "failure_message": "why",
}
TRANSITIONS = [value for value in vars(state_machine).values() if isinstance(value, Transition)]
STEP: dict[str, Any] = {
    "due_in_s": 7.0,
    "fields": {"job_id": "AJ_1"},
    "attempt": {"tries": "2", "outcome": "x"},
    "detail": {"k": "v"},
    "agent_counts": AgentCounts(key=COUNTERS, increments={"m": 3}),
    "times": Times(retention_s=60),
}

every_state = pytest.mark.parametrize("state", State)
every_transition = pytest.mark.parametrize("transition", TRANSITIONS, ids=lambda t: t.event)


def place(store: Ledger, raw: redis.Redis, state: State) -> dict[str, Any]:
    """A record in `state`, with everything that an attempt can have left; the keyspace then."""
    store.run(dispatches.create(new_dispatch(), due_in_s=2.0, detail={}))
    raw.hset(RECORD, mapping={"state": state, "updated_at_ms": "1", **OF_ATTEMPT})
    if state in LEASED:
        raw.zadd("usher:leases", {"dsp_1": 7})
    if state is State.WAITING:
        raw.zadd("usher:waiting", {"dsp_1": 8})
    if state in TERMINAL:
        raw.delete(LIVE, SESSIONS)
        raw.zrem("usher:due", "dsp_1")
    return keyspace(raw)


def expected(before: dict[str, Any], state: State, transition: Transition, now_ms: int) -> Any:
    """The keyspace after STEP, out of the one before and the table."""
    after = copy.deepcopy(before)
    moved = state in transition.moves
    record, generation = after[RECORD], "1"
    if moved and transition.new_generation:
        generation = record["generation"] = "2"
        for name in OF_ATTEMPT:
            del record[name]
    record |= {"updated_at_ms": str(now_ms), "job_id": "AJ_1"}
    event = f'"event":"{transition.event}","generation":{generation},"detail":{{"k": "v"}}'
    after[TIMELINE].append(f'{{"at_ms":{now_ms},{event}}}')
    after[ATTEMPTS] = {"1.tries": "2", "1.outcome": "x"}
    if moved:
        record["state"] = transition.to
        if transition.to is State.JOINED:
            record["joined_seen_at_ms"] = str(now_ms)
        after.setdefault("usher:due", {})["dsp_1"] = now_ms + 7000
        after.pop("usher:leases", None)
        after.pop("usher:waiting", None)
        if transition.to is State.WAITING:
            after["usher:waiting"] = {"dsp_1": int(record["requested_at_ms"])}
        if transition.to is State.LEAVING or transition.to in TERMINAL:
            after.pop(LIVE, None)  # another dispatch may have the room
        if transition.to in OPEN_STATES:
            after[SESSIONS] = {"dsp_1": OPEN_STATES.index(transition.to) + 1}
        else:
            after.pop(SESSIONS, None)
            if transition.to is State.FAILED:
                after["usher:failed:acme"] = {"dsp_1": now_ms}
            for key in (RECORD, ATTEMPTS, TIMELINE):
                after[key] = (after[key], "expires")
    return after


def updated_at_ms(found: dict[str, Any]) -> int:
    record = found[RECORD]
    return int((record[0] if isinstance(record, tuple) else record)["updated_at_ms"])


@every_state
@every_transition
def test_a_transition_moves_or_notes_or_refuses_as_the_table_says(
    transition: Transition, state: State, store: Ledger, raw: redis.Redis
) -> None:
    before = place(store, raw, state)
    with_counters = keyspace(raw, counting=True)

    done = store.run(dispatches.advance(Advance(REF, transition, **STEP)))

    found = keyspace(raw)
    if state not in transition.moves | transition.notes:
        assert done == Advanced(outcome="refused", state=state, generation=1, job_id="AJ_0")
        assert not done.applied
        assert keyspace(raw, counting=True) == with_counters
        return
    assert counters(raw, COUNTERS) == {"m": 3}
    assert found == expected(before, state, transition, updated_at_ms(found))
    assert done.applied
    assert done.moved is (state in transition.moves)
    assert done.generation == (2 if done.moved and transition.new_generation else 1)
    assert done.state == (transition.to if done.moved else state)


@every_state
@every_transition
@pytest.mark.parametrize("record_generation", [2, 10])
def test_a_stale_generation_writes_nothing(
    record_generation: int, transition: Transition, state: State, store: Ledger, raw: redis.Redis
) -> None:
    place(store, raw, state)
    raw.hset(RECORD, "generation", record_generation)
    before = keyspace(raw, counting=True)

    done = store.run(dispatches.advance(Advance(REF, transition, **STEP)))

    assert done == Advanced(
        outcome="stale", state=state, generation=record_generation, job_id="AJ_0"
    )
    assert not done.applied
    assert keyspace(raw, counting=True) == before


@every_transition
def test_a_transition_carried_out_twice_moves_once(
    transition: Transition, store: Ledger, raw: redis.Redis
) -> None:
    if not transition.moves:
        return
    place(store, raw, min(transition.moves))
    store.run(dispatches.advance(Advance(REF, transition, **STEP)))
    between = keyspace(raw, counting=True)

    again = store.run(dispatches.advance(Advance(REF, transition, **STEP)))

    assert not again.moved
    if not again.applied:
        assert keyspace(raw, counting=True) == between


@every_transition
def test_a_record_that_is_not_there_is_unknown_and_stays_so(
    transition: Transition, store: Ledger, raw: redis.Redis
) -> None:
    done = store.run(dispatches.advance(Advance(REF, transition, **STEP)))

    assert done == Advanced(outcome="unknown", state="", generation=0, job_id="")
    assert keyspace(raw, counting=True) == {}


def test_an_event_before_the_transitions_own_stands_before_it(
    store: Ledger, raw: redis.Redis
) -> None:
    place(store, raw, State.DISPATCHED)

    store.run(dispatches.advance(Advance(REF, state_machine.ACCEPTED, offered_ago_s=0.0, **STEP)))

    record = store.run(dispatches.read("dsp_1"))
    assert record is not None
    assert [event.event for event in record.timeline] == ["queued", "offered", "accepted"]


def test_without_a_due_time_a_move_takes_the_record_off_the_list_and_a_note_does_not(
    store: Ledger, raw: redis.Redis
) -> None:
    due = place(store, raw, State.ACCEPTED)["usher:due"]

    store.run(dispatches.advance(Advance(REF, state_machine.AGENT_CONNECTED)))
    assert keyspace(raw)["usher:due"] == due
    store.run(dispatches.advance(Advance(REF, state_machine.JOINED)))
    assert "usher:due" not in keyspace(raw)


def test_the_timeline_keeps_the_last_200_events(store: Ledger, raw: redis.Redis) -> None:
    place(store, raw, State.JOINED)

    for number in range(205):
        step = dispatches.advance(
            Advance(REF, state_machine.AGENT_CONNECTED, detail={"n": str(number)})
        )
        store.run(step)

    kept = [json.loads(text)["detail"]["n"] for text in keyspace(raw)[TIMELINE]]
    assert kept == [str(number) for number in range(5, 205)]


def test_a_terminal_record_leaves_the_live_key_of_another_dispatch_alone(
    store: Ledger, raw: redis.Redis
) -> None:
    place(store, raw, State.JOINED)
    raw.set(LIVE, "dsp_2")

    store.run(
        dispatches.advance(Advance(REF, state_machine.AGENT_LEFT, times=Times(retention_s=60)))
    )

    assert keyspace(raw)[LIVE] == "dsp_2"


def test_an_ended_record_expires_after_its_retention(store: Ledger, raw: redis.Redis) -> None:
    place(store, raw, State.DISPATCHED)

    store.run(
        dispatches.advance(
            Advance(
                REF,
                state_machine.FAILED,
                attempt={"outcome": "failed"},
                times=Times(retention_s=60),
            )
        )
    )

    assert all(0 < raw.ttl(key) <= 60 for key in (RECORD, ATTEMPTS, TIMELINE))


@pytest.mark.parametrize(
    ("asked_ago_s", "outcome"), [(1.0, "wanted"), (9.0, "moved"), (None, "moved")]
)
def test_a_session_that_a_caller_has_asked_for_since_does_not_end(
    asked_ago_s: float | None, outcome: str, store: Ledger, raw: redis.Redis
) -> None:
    place(store, raw, State.JOINED)
    if asked_ago_s is not None:
        asked_at_ms = store.run(reports.ping()) - int(asked_ago_s * 1000)
        raw.hset(RECORD, "asked_at_ms", asked_at_ms)
    before = keyspace(raw, counting=True)

    done = store.run(
        dispatches.advance(
            Advance(REF, state_machine.AGENT_LEAVING, provided=Provided(unless_asked_for_s=5.0))
        )
    )

    assert done.outcome == outcome
    if outcome == "wanted":
        assert keyspace(raw, counting=True) == before


def test_who_comes_back_has_as_much_time_for_an_agent_as_the_request_had(
    store: Ledger, raw: redis.Redis
) -> None:
    place(store, raw, State.JOINED)
    store.run(dispatches.advance(Advance(REF, state_machine.AGENT_LEAVING, times=Times(lease_s=3))))

    done = store.run(
        dispatches.advance(
            Advance(
                REF, state_machine.CAME_BACK, due_in_s=1.0, times=Times(deadline_as_before=True)
            )
        )
    )

    found = keyspace(raw)
    assert (done.state, done.generation) == (State.QUEUED, 2)
    assert found[LIVE] == "dsp_1"
    assert int(found[RECORD]["deadline_at_ms"]) == updated_at_ms(found) + 20_000


def test_who_comes_back_to_a_room_that_another_dispatch_serves_is_served_by_that(
    store: Ledger, raw: redis.Redis
) -> None:
    place(store, raw, State.JOINED)
    store.run(dispatches.advance(Advance(REF, state_machine.AGENT_LEAVING, times=Times(lease_s=3))))
    store.run(dispatches.create(new_dispatch("dsp_2"), due_in_s=2.0, detail={}))

    done = store.run(
        dispatches.advance(
            Advance(
                REF, state_machine.CAME_BACK, due_in_s=1.0, times=Times(deadline_as_before=True)
            )
        )
    )

    assert (done.outcome, done.job_id) == ("occupied", "dsp_2")
