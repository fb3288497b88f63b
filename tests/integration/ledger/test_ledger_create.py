"""What asking for an agent writes into Redis; everything that is there is compared."""

from __future__ import annotations

import itertools
import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

from dispatcher.domain.models import END_MARGIN_S, Dispatch, Limits, State, TimelineEvent
from dispatcher.domain.quotas import AT_ONCE, PACE_MS, SESSION_RETRY_S, Admission
from dispatcher.domain.state_machine import FAILED
from dispatcher.errors import LimitReached, Overloaded
from dispatcher.ledger import dispatches, keys, reports
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.dispatches import Created
from dispatcher.settings import CommonSettings
from tests.support.values import counters, keyspace, new_dispatch


def create(store: Ledger, dispatch_id: str = "dsp_1", **changes: Any) -> Created:
    return store.run(
        dispatches.create(new_dispatch(dispatch_id, **changes), due_in_s=2.0, detail={"by": "test"})
    )


def test_a_new_record_is_these_keys_and_no_others(store: Ledger, raw: redis.Redis) -> None:
    before_ms = store.run(reports.ping())
    created = create(store, container="box-1", agent_metadata='{"a": "ü"}')
    after_ms = store.run(reports.ping())

    assert created == Created(dispatch_id="dsp_1", state=State.QUEUED, new=True)
    found = keyspace(raw)
    [message] = found.pop("dispatch")
    assert json.loads(json.loads(message)["body"])[1]["dispatch_id"] == "dsp_1"
    now_ms = int(found["usher:dispatch:dsp_1"]["created_at_ms"])
    assert before_ms <= now_ms <= after_ms
    assert found == {
        "usher:dispatch:dsp_1": {
            "state": "queued",
            "generation": "1",
            "client_id": "acme",
            "room_name": "room-1",
            "agent_name": "session-agent-rag",
            "container": "box-1",
            "agent_metadata": '{"a": "ü"}',
            "created_at_ms": str(now_ms),
            "requested_at_ms": str(now_ms),
            "updated_at_ms": str(now_ms),
            "deadline_at_ms": str(now_ms + 20_000),
        },
        "usher:dispatch:dsp_1:timeline": [
            f'{{"at_ms":{now_ms},"event":"queued","generation":1,"detail":{{"by":"test"}}}}'
        ],
        "usher:due": {"dsp_1": now_ms + 2000},
        "usher:live:acme:session-agent-rag:room-1": "dsp_1",
        "usher:index:acme": {"dsp_1": now_ms},
        "usher:sessions:acme": {"dsp_1": 1},
    }
    assert counters(raw, "usher:metrics:dispatch:acme") == {"dispatches": 1}


def test_when_too_many_are_on_their_way_nothing_is_written(store: Ledger, raw: redis.Redis) -> None:
    create(store, "dsp_1")
    before = keyspace(raw)
    another = new_dispatch("dsp_2", room_name="room-2")

    with pytest.raises(Overloaded):
        store.run(
            dispatches.create(another, due_in_s=2, detail={}, admission=Admission(max_backlog=1))
        )
    assert keyspace(raw) == before

    same_room = dispatches.create(
        new_dispatch("dsp_3"), due_in_s=2, detail={}, admission=Admission(max_backlog=1)
    )
    assert not store.run(same_room).new  # who has a session keeps it
    assert store.run(
        dispatches.create(another, due_in_s=2, detail={}, admission=Admission(max_backlog=2))
    ).new


@pytest.mark.parametrize("deadline_s", [1, 2, 3])
def test_it_is_looked_at_before_its_deadline_however_near_that_is(
    deadline_s: int, store: Ledger, raw: redis.Redis
) -> None:
    create(store, deadline_ms=deadline_s * 1000)

    made_ms = int(raw.hget("usher:dispatch:dsp_1", "created_at_ms") or 0)
    left_ms = max(0, int((deadline_s - END_MARGIN_S) * 1000))
    assert keyspace(raw)["usher:due"] == {"dsp_1": made_ms + min(2000, left_ms)}


def test_one_that_would_be_due_too_late_for_its_deadline_is_refused(
    store: Ledger, raw: redis.Redis
) -> None:
    def paced(number: int) -> Created:
        new = new_dispatch(f"dsp_{number}", room_name=f"room-{number}", deadline_ms=5000)
        return store.run(
            dispatches.create(new, due_in_s=2, detail={}, admission=Admission(paced=True))
        )

    made, refused = 0, None
    while refused is None and made < 490:
        try:
            paced(made)
            made += 1
        except LimitReached as error:
            refused = error

    assert refused is not None
    found = keyspace(raw)
    assert len(found["usher:due"]) == made > AT_ONCE
    for dispatch_id, due_ms in found["usher:due"].items():
        # And there is as much time left for the way into the room.
        waits_ms = due_ms - int(found[f"usher:dispatch:{dispatch_id}"]["created_at_ms"])
        assert waits_ms <= max(2000, (5 - END_MARGIN_S) * 1000 / 2)
    assert "before their deadline" in str(refused)
    assert 0 < refused.retry_after_s <= PACE_MS / 1000
    time.sleep(refused.retry_after_s)  # so long, and no longer
    assert paced(made).new


def test_who_looks_again_does_so_before_the_deadline(store: Ledger, raw: redis.Redis) -> None:
    create(store, deadline_ms=5000)
    deadline_ms = int(raw.hget("usher:dispatch:dsp_1", "deadline_at_ms") or 0)
    raw.zadd("usher:due", {"dsp_1": 1})

    assert store.run(dispatches.claim_due(limit=9, push_s=30)) == ["dsp_1"]

    assert keyspace(raw)["usher:due"] == {"dsp_1": deadline_ms - END_MARGIN_S * 1000}


def test_a_new_record_reads_back_as_what_was_asked_for(store: Ledger) -> None:
    create(store, container="box-1", agent_metadata="{}")

    record = store.run(dispatches.read("dsp_1"))

    assert record is not None
    assert record == Dispatch(
        dispatch_id="dsp_1",
        client_id="acme",
        room_name="room-1",
        agent_name="session-agent-rag",
        generation=1,
        container="box-1",
        agent_metadata="{}",
        state=State.QUEUED,
        created_at_ms=record.created_at_ms,
        requested_at_ms=record.created_at_ms,
        updated_at_ms=record.created_at_ms,
        deadline_at_ms=record.created_at_ms + 20_000,
        read_at_ms=record.read_at_ms,
        timeline=(
            TimelineEvent(
                at_ms=record.created_at_ms, event="queued", generation=1, detail={"by": "test"}
            ),
        ),
    )
    assert record.created_at_ms <= record.read_at_ms


def test_there_is_no_record_of_an_id_that_never_was(store: Ledger) -> None:
    assert store.run(dispatches.read("dsp_none")) is None


def test_the_same_request_while_the_dispatch_is_live_gives_it_and_changes_nothing(
    store: Ledger, raw: redis.Redis
) -> None:
    create(store)
    before = keyspace(raw)

    again = create(store, "dsp_2", agent_metadata="other", deadline_ms=1)

    assert again == Created(dispatch_id="dsp_1", state=State.QUEUED, new=False)
    assert keyspace(raw) == before


@pytest.mark.parametrize("state", [State.ACCEPTED, State.JOINED])
def test_that_a_caller_has_asked_again_is_noted_where_an_agent_may_be_about_to_leave(
    state: State, store: Ledger, raw: redis.Redis
) -> None:
    create(store)
    raw.hset("usher:dispatch:dsp_1", "state", state)
    before = keyspace(raw)

    assert not create(store, "dsp_2").new

    found = keyspace(raw)
    asked_at_ms = int(found["usher:dispatch:dsp_1"].pop("asked_at_ms"))
    assert asked_at_ms <= store.run(reports.ping())
    assert found == before


@pytest.mark.parametrize(
    ("record", "metadata", "over"),
    [
        ({"alone_since_ms": "1", "person_seen": "1"}, "other", True),
        ({"alone_since_ms": "1", "person_seen": "1"}, "", True),
        ({"alone_since_ms": "1", "person_seen": "1"}, "first", False),
        ({"alone_since_ms": "1"}, "other", False),  # nobody has come yet
        ({"person_seen": "1"}, "other", False),  # people are there
    ],
)
def test_other_metadata_for_a_dispatch_whose_people_have_left_finds_it_over(
    record: dict[Any, Any], metadata: str, over: bool, store: Ledger, raw: redis.Redis
) -> None:
    create(store, agent_metadata="first")
    raw.hset("usher:dispatch:dsp_1", mapping={"state": "joined", **record})
    before = keyspace(raw)

    found = create(store, "dsp_2", agent_metadata=metadata)

    assert (found.dispatch_id, found.new, found.over) == ("dsp_1", False, over)
    if over:
        assert keyspace(raw) == before


def test_the_same_request_after_the_dispatch_has_ended_makes_a_new_one(store: Ledger) -> None:
    create(store)
    record = store.run(dispatches.read("dsp_1"))
    assert record is not None
    store.run(dispatches.advance(Advance(record, FAILED, times=Times(retention_s=60))))

    assert create(store, "dsp_2") == Created(dispatch_id="dsp_2", state=State.QUEUED, new=True)


@pytest.mark.parametrize(
    "other", [{"client_id": "globex"}, {"room_name": "room-2"}, {"agent_name": "another-agent"}]
)
def test_another_client_room_or_agent_gets_a_dispatch_of_its_own(
    other: dict[str, str], store: Ledger, raw: redis.Redis
) -> None:
    create(store)

    assert create(store, "dsp_2", **other).new
    assert sorted(keyspace(raw)["usher:due"]) == ["dsp_1", "dsp_2"]


TRICKY = ["a:b", "a", "b", "a:", ":a", "a%3Ab", "a/b", "räum", "ra\u0308um", "🙂", "a b", "A", "%"]


def test_names_with_colons_and_unicode_do_not_collide(store: Ledger, raw: redis.Redis) -> None:
    pairs = list(itertools.product(TRICKY, repeat=2))

    for number, (agent_name, room_name) in enumerate(pairs):
        created = create(store, f"dsp_{number}", agent_name=agent_name, room_name=room_name)
        assert created.new, (agent_name, room_name)
    for number, (agent_name, room_name) in enumerate(pairs):
        again = create(store, "dsp_x", agent_name=agent_name, room_name=room_name)
        assert again.dispatch_id == f"dsp_{number}"

    assert len([key for key in keyspace(raw) if key.startswith("usher:live:")]) == len(pairs)


def test_the_counters_of_clients_containers_and_agents_do_not_collide() -> None:
    names = {keys.agent_metrics(*parts) for parts in itertools.product(TRICKY, repeat=3)}

    assert len(names) == len(TRICKY) ** 3


def test_a_request_of_the_largest_allowed_size_fits(store: Ledger) -> None:
    metadata = "🙂" * 16_000

    create(store, agent_metadata=metadata)

    record = store.run(dispatches.read("dsp_1"))
    assert record is not None
    assert record.agent_metadata == metadata


def test_without_limits_and_pace_nothing_is_counted(store: Ledger, raw: redis.Redis) -> None:
    create(store)

    assert not [key for key in keyspace(raw) if key.startswith(("usher:rate:", "usher:pace:"))]


def ask(store: Ledger, number: int, **admission: Any) -> Created:
    new = new_dispatch(f"dsp_{number}", room_name=f"room-{number}")
    admitted = Admission(**admission)
    return store.run(dispatches.create(new, due_in_s=2.0, detail={}, admission=admitted))


def test_a_bucket_of_requests_is_refilled_evenly(store: Ledger, raw: redis.Redis) -> None:
    limits = Limits(requests_per_minute=120)
    started, passed = time.monotonic(), 0

    def ask_until_refused() -> None:
        nonlocal passed
        while passed < 1000:
            ask(store, 0, limits=limits)
            passed += 1

    with pytest.raises(LimitReached, match="120 requests per minute") as caught:
        ask_until_refused()

    assert 120 <= passed <= 121 + 2 * (time.monotonic() - started)
    assert 0 < caught.value.retry_after_s <= 0.5
    time.sleep(caught.value.retry_after_s)  # what the answer tells the caller to do
    assert ask(store, 1, limits=limits).new
    assert 0 < raw.pttl("usher:rate:acme") <= 60_000


def test_a_limit_that_is_reached_writes_nothing(store: Ledger, raw: redis.Redis) -> None:
    limits = Limits(requests_per_minute=60, max_sessions=2)
    ask(store, 1, limits=limits)
    ask(store, 2, limits=limits)
    before = keyspace(raw)

    with pytest.raises(LimitReached, match="2 sessions at once") as caught:
        ask(store, 3, limits=limits)

    assert caught.value.retry_after_s == SESSION_RETRY_S
    assert keyspace(raw) == before
    assert not ask(store, 1, limits=limits).new  # the same session, once more


def test_the_limits_of_many_at_once_hold(common: CommonSettings, store: Ledger) -> None:
    limits = Limits(max_sessions=10)

    def one(number: int) -> bool:
        try:
            return ask(store, number, limits=limits).new
        except LimitReached:
            return False

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(one, range(100))) == 10


def test_beside_other_clients_a_long_row_is_woken_at_an_even_pace(
    store: Ledger, raw: redis.Redis
) -> None:
    made = [ask(store, number, paced=True) for number in range(60)]
    now_ms = store.run(reports.ping())

    queued = [json.loads(text) for text in raw.lrange("dispatch", 0, -1)]
    woken = [json.loads(message["body"])[1]["dispatch_id"] for message in reversed(queued)]
    at_once = len(woken)
    assert woken == [created.dispatch_id for created in made[:at_once]]
    assert AT_ONCE <= at_once < AT_ONCE + 20  # some time has passed meanwhile
    due = keyspace(raw)["usher:due"]
    first, last = (due[made[n].dispatch_id] for n in (at_once, -1))
    assert first <= now_ms + 2 * PACE_MS
    assert last <= now_ms + 60 * PACE_MS
    assert last > first
    assert due["dsp_0"] > now_ms + 1000  # its wake-up is in the queue already
