"""Does the same request get the same dispatch, whatever comes between, and only the same one?"""

from __future__ import annotations

import pytest
import redis

from dispatcher.domain.models import State
from dispatcher.domain.state_machine import FAILED
from dispatcher.ledger import dispatches
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.dispatches import IDEMPOTENCY_S, Created, Once
from tests.support.values import keyspace, new_dispatch

KEY = "usher:idempotency:acme:k1"
ONCE = Once(key_digest="k1", request_digest="r1", room_name="room-1", identity="ann")
REPEATED = Created(
    dispatch_id="dsp_1", state=State.QUEUED, new=False, room_name="room-1", identity="ann"
)


def ask(
    store: Ledger, dispatch_id: str, once: Once | None = ONCE, room_name: str = "room-1"
) -> Created:
    new = new_dispatch(dispatch_id, room_name=room_name)
    return store.run(dispatches.create(new, due_in_s=2.0, detail={}, once=once))


def other(**changes: str) -> Once:
    values = {"key_digest": "k1", "request_digest": "r1", "room_name": "room-2", "identity": "bob"}
    return Once(**(values | changes))


def test_the_key_is_kept_for_a_day_beside_the_record(store: Ledger, raw: redis.Redis) -> None:
    assert ask(store, "dsp_0", None, "room-0").new
    without = set(keyspace(raw))
    assert not any("idempotency" in key for key in without)

    assert ask(store, "dsp_1") == Created(dispatch_id="dsp_1", state=State.QUEUED, new=True)

    found = keyspace(raw)
    kept = {"request": "r1", "dispatch_id": "dsp_1", "room": "room-1", "identity": "ann"}
    assert found[KEY] == (kept, "expires")
    assert IDEMPOTENCY_S - 10 <= raw.ttl(KEY) <= IDEMPOTENCY_S
    assert set(found) - without == {
        KEY,
        "usher:dispatch:dsp_1",
        "usher:dispatch:dsp_1:timeline",
        "usher:live:acme:session-agent-rag:room-1",
    }


def test_the_same_again_writes_nothing_and_gets_room_and_identity_of_the_first(
    store: Ledger, raw: redis.Redis
) -> None:
    ask(store, "dsp_1")
    before = keyspace(raw)

    assert ask(store, "dsp_2", other(), "room-2") == REPEATED
    assert keyspace(raw) == before


def test_another_request_with_the_key_is_a_conflict_and_writes_nothing(
    store: Ledger, raw: redis.Redis
) -> None:
    ask(store, "dsp_1")
    before = keyspace(raw)

    assert ask(store, "dsp_2", other(request_digest="r2"), "room-2").conflict
    assert keyspace(raw) == before


def test_another_key_and_another_clients_are_other_requests(store: Ledger) -> None:
    ask(store, "dsp_1")

    assert ask(store, "dsp_2", other(key_digest="k2"), "room-2").new
    new = new_dispatch("dsp_3", client_id="globex")
    assert store.run(dispatches.create(new, due_in_s=2.0, detail={}, once=ONCE)).new


def test_a_key_stands_for_the_live_dispatch_that_its_request_met(store: Ledger) -> None:
    ask(store, "dsp_1", None)

    first = ask(store, "dsp_2")
    again = ask(store, "dsp_3", other(), "room-2")

    assert first == Created(dispatch_id="dsp_1", state=State.QUEUED, new=False)
    assert again == REPEATED


@pytest.mark.parametrize("gone", [False, True])
def test_a_dispatch_that_has_ended_is_not_made_again(
    gone: bool, store: Ledger, raw: redis.Redis
) -> None:
    ask(store, "dsp_1")
    record = store.run(dispatches.read("dsp_1"))
    assert record is not None
    store.run(dispatches.advance(Advance(record, FAILED, times=Times(retention_s=60))))
    if gone:
        raw.delete("usher:dispatch:dsp_1")

    again = ask(store, "dsp_2", other(), "room-2")

    assert not again.new
    assert again.dispatch_id == "dsp_1"
    assert again.state is (State.ENDED if gone else State.FAILED)


def test_what_was_promised_without_redis_and_written_since_is_not_written_over(
    store: Ledger, raw: redis.Redis
) -> None:
    ask(store, "dsp_1", None)
    record = store.run(dispatches.read("dsp_1"))
    assert record is not None
    store.run(dispatches.advance(Advance(record, FAILED)))
    before = keyspace(raw)

    again = ask(store, "dsp_1")

    assert (again.new, again.state) == (False, State.FAILED)
    assert {key: value for key, value in keyspace(raw).items() if key != KEY} == before
