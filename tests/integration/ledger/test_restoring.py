"""How does the ledger get back what Redis has lost? Everything that is there is compared."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from dispatcher.domain.models import Dispatch, RememberedDispatch, State
from dispatcher.domain.state_machine import FAILED
from dispatcher.ledger import dispatches, restoring
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.restoring import Restored
from tests.support.values import AGENT_NAME, keyspace, new_dispatch

RETENTION_S = 500


def remembered(dispatch_id: str = "dsp_1", **changes: Any) -> RememberedDispatch:
    values: dict[str, Any] = {
        "client_id": "acme",
        "room_name": "room-1",
        "agent_name": AGENT_NAME,
        "generation": 3,
        "state": State.ACCEPTED,
        "container": "",
        "agent_metadata": "{}",
        "age_ms": 4000,
        "deadline_ms": 20_000,
        "job_id": "AJ_1",
    }
    return RememberedDispatch(dispatch_id=dispatch_id, **(values | changes))


def restore(store: Ledger, dispatch_id: str = "dsp_1", **changes: Any) -> Restored:
    step = restoring.restore(remembered(dispatch_id, **changes), by="test", retention_s=RETENTION_S)
    return store.run(step)


def read(store: Ledger, dispatch_id: str = "dsp_1") -> Dispatch:
    dispatch = store.run(dispatches.read(dispatch_id))
    assert dispatch is not None
    return dispatch


def test_a_restored_record_is_these_keys_and_no_others(store: Ledger, raw: redis.Redis) -> None:
    assert restore(store) is Restored.RESTORED

    found = keyspace(raw)
    now_ms = int(found["usher:dispatch:dsp_1"]["updated_at_ms"])
    assert found == {
        "usher:dispatch:dsp_1": {
            "state": "accepted",
            "generation": "3",
            "client_id": "acme",
            "room_name": "room-1",
            "agent_name": AGENT_NAME,
            "agent_metadata": "{}",
            "job_id": "AJ_1",
            "created_at_ms": str(now_ms - 4000),
            "requested_at_ms": str(now_ms - 4000),
            "updated_at_ms": str(now_ms),
            "deadline_at_ms": str(now_ms + 20_000),
        },
        "usher:dispatch:dsp_1:timeline": [
            f'{{"at_ms":{now_ms},"event":"restored","generation":3,"detail":{{"by": "test"}}}}'
        ],
        "usher:due": {"dsp_1": now_ms},
        f"usher:live:acme:{AGENT_NAME}:room-1": "dsp_1",
        "usher:index:acme": {"dsp_1": now_ms - 4000},
        "usher:sessions:acme": {"dsp_1": 7},
    }


def test_a_record_that_redis_has_is_left_alone(store: Ledger, raw: redis.Redis) -> None:
    store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))
    before = keyspace(raw)

    assert restore(store) is Restored.EXISTS

    assert keyspace(raw) == before


def test_when_another_dispatch_serves_the_room_the_record_says_which(
    store: Ledger, raw: redis.Redis
) -> None:
    store.run(dispatches.create(new_dispatch("dsp_other"), due_in_s=2, detail={}))

    assert restore(store) is Restored.OCCUPIED

    record = read(store)
    assert record.state is State.CANCELLED
    assert record.failure_reason == "superseded"
    assert "dsp_other" in record.failure_message
    found = keyspace(raw)
    assert found[f"usher:live:acme:{AGENT_NAME}:room-1"] == "dsp_other"
    assert list(found["usher:due"]) == ["dsp_other"]
    assert 0 < raw.ttl("usher:dispatch:dsp_1") <= RETENTION_S
    assert found["usher:dispatch:dsp_1:timeline"][1] == "expires"


def test_a_restored_dispatch_has_its_room_until_it_ends(store: Ledger) -> None:
    restore(store)
    again = new_dispatch("dsp_2")

    created = store.run(dispatches.create(again, due_in_s=2, detail={}))
    assert (created.new, created.dispatch_id) == (False, "dsp_1")
    store.run(dispatches.advance(Advance(read(store), FAILED)))

    assert store.run(dispatches.create(again, due_in_s=2, detail={})).new


def test_a_rooms_mark_without_its_record_does_not_keep_a_new_dispatch_out(
    store: Ledger, raw: redis.Redis
) -> None:
    raw.set(f"usher:live:acme:{AGENT_NAME}:room-1", "dsp_gone")

    assert store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={})).new


def test_what_is_missing_and_what_has_ended_is_named_and_nothing_else(store: Ledger) -> None:
    for number in (2, 4):
        new = new_dispatch(f"dsp_{number}", room_name=f"room-{number}")
        store.run(dispatches.create(new, due_in_s=2, detail={}))
    store.run(
        dispatches.advance(
            Advance(read(store, "dsp_4"), FAILED, times=Times(retention_s=RETENTION_S))
        )
    )

    stand = store.run(restoring.standing([f"dsp_{number}" for number in range(1, 6)]))

    assert (stand.missing, stand.ended) == ({"dsp_1", "dsp_3", "dsp_5"}, {"dsp_4"})
    assert store.run(restoring.standing([])).missing == frozenset()


def test_an_empty_redis_is_noticed_by_everybody_and_counted_once(
    store: Ledger, raw: redis.Redis
) -> None:
    first, lost = store.run(restoring.birth(""))
    assert not lost
    assert store.run(restoring.birth(first)) == (first, False)

    raw.flushall()
    second, lost = store.run(restoring.birth(first))
    assert (second != first, lost) == (True, True)
    assert store.run(restoring.birth(first)) == (second, True)  # another process
    assert store.run(restoring.birth(second)) == (second, False)
    assert raw.hget("usher:metrics:ledger", "data_losses") == "1"


@pytest.mark.parametrize("state", [State.DELEGATED, State.ACCEPTED])
def test_a_restored_record_is_due_at_once(store: Ledger, state: State) -> None:
    restore(store, state=state)

    assert store.run(dispatches.claim_due(limit=9, push_s=2)) == ["dsp_1"]
