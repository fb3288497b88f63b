"""Leases: which agents count as alive, which fell silent, and which dispatches wait for room."""

from __future__ import annotations

import time
from typing import Any

import pytest
import redis

from dispatcher.domain import models, state_machine
from dispatcher.domain.models import Dispatch, DispatchRef, State
from dispatcher.domain.quotas import Admission
from dispatcher.domain.timing import GRACE_S
from dispatcher.errors import LimitReached
from dispatcher.ledger import dispatches, leases, reports
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.leases import GAP_S, LEASE_S, Renewal
from tests.support.clocks import goes_back
from tests.support.values import keyspace, new_dispatch

RECORD = "usher:dispatch:dsp_1"


def requested(store: Ledger, dispatch_id: str = "dsp_1", **changes: Any) -> Dispatch:
    store.run(dispatches.create(new_dispatch(dispatch_id, **changes), due_in_s=2.0, detail={}))
    return read(store, dispatch_id)


def read(store: Ledger, dispatch_id: str = "dsp_1") -> Dispatch:
    dispatch = store.run(dispatches.read(dispatch_id))
    assert dispatch is not None
    return dispatch


def accepted(store: Ledger) -> Dispatch:
    dispatch = requested(store)
    store.run(dispatches.advance(Advance(dispatch, state_machine.DISPATCH_STARTED, due_in_s=12)))
    store.run(
        dispatches.advance(
            Advance(dispatch, state_machine.ACCEPTED, due_in_s=7, fields={"job_id": "AJ_1"})
        )
    )
    return read(store)


def joined(store: Ledger, *, lease_s: float | None = 60) -> Dispatch:
    store.run(
        dispatches.advance(
            Advance(accepted(store), state_machine.JOINED, times=Times(lease_s=lease_s))
        )
    )
    return read(store)


def renew(store: Ledger, ref: DispatchRef, *, people: int = 1, **changes: Any) -> Renewal:
    values: dict[str, Any] = {
        "job_id": "AJ_1",
        "abandon_after_s": 300,
        "deserted_after_s": 30,
        **changes,
    }
    return store.run(leases.renew(ref, people=people, **values))


def lost(store: Ledger, raw: redis.Redis, **ago_s: float) -> int:
    """Leases that ran out so many seconds ago, with somebody who looks; Redis's clock in ms."""
    now_ms = store.run(reports.ping())
    raw.zadd("usher:leases", {name: now_ms - int(s * 1000) for name, s in ago_s.items()})
    raw.set("usher:leases:looked_at", now_ms)
    return now_ms


def test_joining_puts_a_lease_and_a_later_fact_keeps_it(store: Ledger, raw: redis.Redis) -> None:
    dispatch = joined(store, lease_s=7)

    assert keyspace(raw)["usher:leases"] == {"dsp_1": dispatch.updated_at_ms + 7000}
    store.run(dispatches.advance(Advance(dispatch, state_machine.AGENT_CONNECTED)))
    assert keyspace(raw)["usher:leases"] == {"dsp_1": dispatch.updated_at_ms + 7000}


def test_an_agent_that_says_that_it_was_cut_off_has_its_lease_end_now(
    store: Ledger, raw: redis.Redis
) -> None:
    store.run(
        dispatches.advance(
            Advance(joined(store), state_machine.AGENT_CONNECTED, times=Times(lease_s=0))
        )
    )

    assert keyspace(raw)["usher:leases"] == {"dsp_1": read(store).updated_at_ms}


def test_a_step_that_is_refused_leaves_the_lease_alone(store: Ledger, raw: redis.Redis) -> None:
    dispatch = joined(store)
    before = keyspace(raw)

    assert not store.run(
        dispatches.advance(
            Advance(dispatch, state_machine.ACCEPTED, times=Times(lease_s=1), losses=1)
        )
    ).applied

    assert keyspace(raw) == before


def test_every_lost_agent_is_counted_and_the_clock_starts_anew(
    store: Ledger, raw: redis.Redis
) -> None:
    step = dispatches.advance(
        Advance(
            joined(store),
            state_machine.AGENT_LOST,
            due_in_s=2,
            times=Times(deadline_in_s=30),
            losses=1,
        )
    )
    store.run(step)
    store.run(step)  # stale now

    again = read(store)
    assert (again.state, again.generation, again.losses) == (State.QUEUED, 2, 1)
    assert again.requested_at_ms == again.updated_at_ms
    assert again.deadline_at_ms == again.requested_at_ms + 30_000
    assert "usher:leases" not in keyspace(raw)


def test_an_agent_that_renews_counts_as_alive_for_the_time_of_a_lease(
    store: Ledger, raw: redis.Redis
) -> None:
    dispatch = joined(store, lease_s=0)

    before_ms = store.run(reports.ping())
    assert renew(store, dispatch) is Renewal.OK

    until_ms = keyspace(raw)["usher:leases"]["dsp_1"] - int(LEASE_S * 1000)
    assert before_ms <= until_ms <= store.run(reports.ping())


def test_an_agent_that_is_not_seen_in_the_room_yet_gets_no_lease(
    store: Ledger, raw: redis.Redis
) -> None:
    assert renew(store, accepted(store)) is Renewal.OK

    assert "usher:leases" not in keyspace(raw)


@pytest.mark.parametrize(
    ("record", "job_id"),
    [
        ({"generation": "2"}, "AJ_1"),
        ({"job_id": "AJ_2"}, "AJ_1"),
        ({"loss": "its process was killed: SIGKILL"}, "AJ_1"),
        *(
            ({"state": str(s)}, "AJ_1")
            for s in sorted(set(State) - {State.ACCEPTED, State.JOINED, State.LEAVING})
        ),
    ],
    ids=str,
)
def test_an_agent_that_the_record_no_longer_stands_by_is_stale_and_writes_nothing(
    record: dict[Any, Any], job_id: str, store: Ledger, raw: redis.Redis
) -> None:
    dispatch = joined(store)
    raw.hset(RECORD, mapping=record)
    before = keyspace(raw)

    assert renew(store, dispatch, job_id=job_id) is Renewal.STALE

    assert keyspace(raw) == before


def leaving(store: Ledger) -> Dispatch:
    store.run(
        dispatches.advance(
            Advance(joined(store), state_machine.AGENT_LEAVING, times=Times(lease_s=LEASE_S))
        )
    )
    return read(store)


@pytest.mark.parametrize("people", [0, 1])
def test_an_agent_that_is_leaving_goes_on_renewing(
    people: int, store: Ledger, raw: redis.Redis
) -> None:
    dispatch = leaving(store)

    assert renew(store, dispatch, people=people) is Renewal.OK

    assert keyspace(raw)["usher:leases"]["dsp_1"] > dispatch.updated_at_ms


def test_an_agent_that_is_leaving_and_alone_for_long_is_told_to_go(
    store: Ledger, raw: redis.Redis
) -> None:
    dispatch = leaving(store)
    raw.hset(RECORD, mapping={"person_seen": "1", "alone_since_ms": "1"})

    assert renew(store, dispatch, people=0) is Renewal.DESERTED


@pytest.mark.parametrize(("asked_ago_s", "renewal"), [(5, Renewal.OK), (25, Renewal.DESERTED)])
def test_an_agent_waits_for_who_has_asked_again_lately(
    asked_ago_s: int, renewal: Renewal, store: Ledger, raw: redis.Redis
) -> None:
    dispatch = joined(store)
    asked_at_ms = store.run(reports.ping()) - asked_ago_s * 1000
    raw.hset(
        RECORD, mapping={"person_seen": "1", "alone_since_ms": "1", "asked_at_ms": asked_at_ms}
    )

    assert renew(store, dispatch, people=0) is renewal


def test_an_agent_that_is_leaving_is_superseded_by_another_dispatch_of_its_room(
    store: Ledger,
) -> None:
    dispatch = leaving(store)
    assert requested(store, "dsp_2").state is State.QUEUED  # the room is free

    assert renew(store, dispatch) is Renewal.SUPERSEDED


def test_one_that_is_leaving_does_not_count_among_its_client_s_sessions(store: Ledger) -> None:
    leaving(store)
    limits = models.Limits(max_sessions=1)

    def create(dispatch_id: str) -> dispatches.Created:
        new = new_dispatch(dispatch_id, room_name=dispatch_id)
        return store.run(
            dispatches.create(new, due_in_s=2.0, detail={}, admission=Admission(limits=limits))
        )

    assert create("dsp_2").new
    store.run(dispatches.advance(Advance(read(store, "dsp_2"), state_machine.CANCEL)))
    assert create("dsp_3").new
    with pytest.raises(LimitReached):
        create("dsp_4")


def test_a_lost_agent_s_lease_ends_now_and_a_worker_is_woken(
    store: Ledger, raw: redis.Redis
) -> None:
    dispatch = joined(store)
    raw.delete("dispatch")

    assert store.run(leases.lapse(dispatch, job_id="AJ_1", loss="its process was killed")) == 1
    assert store.run(leases.lapse(dispatch, job_id="AJ_1", loss="it fell silent")) == 1

    record = read(store)
    assert record.loss == "its process was killed"  # the first to tell knows best
    assert dispatch.updated_at_ms <= record.alive_till_ms <= record.read_at_ms
    message = keyspace(raw)["sweep"][-1]
    assert "dispatcher.tasks.supervise" in message
    assert "dsp_1" in message


@pytest.mark.parametrize(
    "record", [{"generation": "2"}, {"job_id": "AJ_2"}, {"state": "accepted"}, {"state": "ended"}]
)
def test_the_agent_of_another_job_or_of_one_that_is_not_there_is_not_lost(
    record: dict[Any, Any], store: Ledger, raw: redis.Redis
) -> None:
    dispatch = joined(store)
    raw.hset(RECORD, mapping=record)
    before = keyspace(raw)

    assert store.run(leases.lapse(dispatch, job_id="AJ_1", loss="x")) == 0

    assert keyspace(raw) == before


def test_an_agent_of_a_record_that_nobody_claimed_is_stale(store: Ledger, raw: redis.Redis) -> None:
    dispatch = joined(store)
    raw.hdel(RECORD, "job_id")

    assert renew(store, dispatch) is Renewal.STALE


def test_an_agent_of_a_record_that_is_gone_is_unknown(store: Ledger, raw: redis.Redis) -> None:
    dispatch = joined(store)
    raw.flushall()

    assert renew(store, dispatch) is Renewal.UNKNOWN
    assert keyspace(raw) == {}


def test_a_person_in_the_room_is_remembered(store: Ledger) -> None:
    dispatch = joined(store)
    renew(store, dispatch, people=0)
    assert not read(store).person_seen

    renew(store, dispatch, people=2)
    assert read(store).person_seen


def test_an_agent_tells_of_a_person_that_it_met_while_nobody_could_be_told(store: Ledger) -> None:
    renew(store, joined(store), people=0, met=True)

    assert read(store).person_seen


def test_an_agent_to_whom_nobody_has_come_in_time_is_abandoned(
    store: Ledger, raw: redis.Redis
) -> None:
    dispatch = joined(store)
    raw.hset(RECORD, "requested_at_ms", 1)  # it is the time since it was first alone that counts
    assert renew(store, dispatch, people=0, abandon_after_s=60) is Renewal.OK
    alone_for(raw, store, 61)
    before = keyspace(raw)

    assert renew(store, dispatch, people=0, abandon_after_s=60) is Renewal.ABANDONED

    assert keyspace(raw) == before


@pytest.mark.parametrize(("state", "people"), [("joined", 1), ("accepted", 0)])
def test_an_agent_is_not_abandoned_when_somebody_is_there_or_before_it_is_there_itself(
    state: str, people: int, store: Ledger, raw: redis.Redis
) -> None:
    dispatch = joined(store)
    raw.hset(RECORD, mapping={"state": state, "alone_since_ms": 1})

    assert renew(store, dispatch, people=people) is Renewal.OK


def test_an_agent_that_cannot_see_is_neither_alone_nor_abandoned(
    store: Ledger, raw: redis.Redis
) -> None:
    dispatch = joined(store)
    raw.hset(RECORD, "alone_since_ms", 1)
    assert renew(store, dispatch, people=-1) is Renewal.OK
    raw.hset(RECORD, mapping={"person_seen": "1", "alone_since_ms": "1"})
    assert renew(store, dispatch, people=-1) is Renewal.OK
    assert renew(store, dispatch, people=0) is Renewal.OK  # the time for coming back starts anew


def alone_for(raw: redis.Redis, store: Ledger, alone_s: int) -> None:
    raw.hset(RECORD, "alone_since_ms", store.run(reports.ping()) - alone_s * 1000)


@pytest.mark.parametrize(("alone_s", "told"), [(25, Renewal.OK), (35, Renewal.DESERTED)])
def test_an_agent_that_everybody_has_left_waits_a_while_for_them(
    store: Ledger, raw: redis.Redis, alone_s: int, told: Renewal
) -> None:
    dispatch = joined(store)
    renew(store, dispatch, people=1)
    assert renew(store, dispatch, people=0) is Renewal.OK
    alone_for(raw, store, alone_s)

    assert renew(store, dispatch, people=0) is told


def test_whoever_comes_back_stops_that_clock(store: Ledger, raw: redis.Redis) -> None:
    dispatch = joined(store)
    renew(store, dispatch, people=1)
    renew(store, dispatch, people=0)
    alone_for(raw, store, 35)
    renew(store, dispatch, people=1)

    assert renew(store, dispatch, people=0) is Renewal.OK


def test_the_next_agent_has_a_clock_of_its_own(store: Ledger, raw: redis.Redis) -> None:
    dispatch = joined(store)
    renew(store, dispatch, people=0)
    assert raw.hexists(RECORD, "alone_since_ms")

    store.run(
        dispatches.advance(
            Advance(dispatch, state_machine.AGENT_LOST, due_in_s=2, times=Times(deadline_in_s=20))
        )
    )

    assert not raw.hexists(RECORD, "alone_since_ms")


def test_only_ended_leases_are_taken_oldest_first_and_no_more_than_the_limit(
    store: Ledger, raw: redis.Redis
) -> None:
    lost(store, raw, alive=-60, third=1, first=9, second=5)

    assert store.run(leases.claim_ended(limit=2, push_s=30)) == ["first", "second"]
    assert store.run(leases.claim_ended(limit=2, push_s=30)) == ["third"]
    assert store.run(leases.claim_ended(limit=2, push_s=30)) == []


def test_a_lease_that_was_taken_is_pushed_on_and_the_others_are_left(
    store: Ledger, raw: redis.Redis
) -> None:
    before_ms = lost(store, raw, alive=-60, silent=1)

    store.run(leases.claim_ended(limit=9, push_s=30))

    found, after_ms = keyspace(raw)["usher:leases"], store.run(reports.ping())
    assert found["alive"] == before_ms + 60_000
    assert before_ms + 30_000 <= found["silent"] <= after_ms + 30_000


@pytest.mark.parametrize("looked", ["long ago", "never"])
def test_when_nobody_has_looked_for_a_while_every_agent_gets_grace(
    looked: str, store: Ledger, raw: redis.Redis
) -> None:
    now_ms = lost(store, raw, silent=9, nearly=-1, alive=-60)
    if looked == "never":
        raw.delete("usher:leases:looked_at")
    else:
        raw.set("usher:leases:looked_at", now_ms - int(GAP_S * 1000) - 1)

    assert store.run(leases.claim_ended(limit=9, push_s=30)) == []

    found, after_ms = keyspace(raw)["usher:leases"], store.run(reports.ping())
    for name in ("silent", "nearly"):
        assert now_ms <= found[name] - int(GRACE_S * 1000) <= after_ms
    assert found["alive"] == now_ms + 60_000
    assert store.run(leases.claim_ended(limit=9, push_s=30)) == []  # it is grace, not a delay
    raw.zadd("usher:leases", {"silent": now_ms})
    assert store.run(leases.claim_ended(limit=9, push_s=30)) == ["silent"]


@pytest.mark.parametrize("pause_s", [0.5, 1.5, 1.6, 2.0, 3.0, 4.5, 10.0])
def test_a_dead_agent_is_found_however_seldom_somebody_looks(
    pause_s: float, store: Ledger, raw: redis.Redis
) -> None:
    joined(store, lease_s=LEASE_S)
    found: list[list[str]] = []
    while not any(found):
        found.append(store.run(leases.claim_ended(limit=9, push_s=2)))
        assert len(found) * min(pause_s, GAP_S) <= LEASE_S + GRACE_S + 2 * GAP_S
        goes_back(raw, by_s=-pause_s)  # so much later


@pytest.mark.parametrize("pause_s", [1.6, 3.0, 10.0])
def test_an_agent_that_renews_whenever_somebody_looks_is_never_lost(
    pause_s: float, store: Ledger, raw: redis.Redis
) -> None:
    dispatch = joined(store, lease_s=LEASE_S)
    for _ in range(10):
        assert store.run(leases.claim_ended(limit=9, push_s=2)) == []
        goes_back(raw, by_s=-1.4)  # it has time to renew, after Redis has come back
        assert renew(store, dispatch) is Renewal.OK
        goes_back(raw, by_s=-(pause_s - 1.4))


def test_redis_goes_away_twice_and_an_agent_has_its_grace_all_the_same(
    store: Ledger, raw: redis.Redis
) -> None:
    dispatch = joined(store, lease_s=LEASE_S)
    store.run(leases.claim_ended(limit=9, push_s=2))
    assert renew(store, dispatch) is Renewal.OK
    for _ in range(2):
        goes_back(raw, by_s=-10.0)
        assert store.run(leases.claim_ended(limit=9, push_s=2)) == []
    now_ms = store.run(reports.ping())
    assert keyspace(raw)["usher:leases"]["dsp_1"] - now_ms > 2000


def test_a_look_that_was_asked_for_is_not_put_off_by_an_agent_that_renews(
    store: Ledger, raw: redis.Redis
) -> None:
    dispatch = joined(store)
    store.run(leases.claim_ended(limit=9, push_s=2))  # the workers' first look: nobody was away
    assert renew(store, dispatch) is Renewal.OK

    assert store.run(leases.look_again("dsp_1", in_s=0.0)) == 1
    assert renew(store, dispatch) is Renewal.OK

    assert store.run(leases.claim_ended(limit=9, push_s=2)) == ["dsp_1"]


def test_a_look_is_asked_for_until_somebody_has_looked(store: Ledger, raw: redis.Redis) -> None:
    dispatch = joined(store)
    store.run(leases.claim_ended(limit=9, push_s=2))
    store.run(leases.look_again("dsp_1", in_s=0.0))
    assert store.run(leases.claim_ended(limit=9, push_s=0.2)) == ["dsp_1"]
    assert renew(store, dispatch) is Renewal.OK  # the worker that was woken is dead meanwhile

    assert store.run(leases.claim_ended(limit=9, push_s=2)) == []
    time.sleep(0.25)
    assert store.run(leases.claim_ended(limit=9, push_s=2)) == ["dsp_1"]

    seen = read(store)
    assert store.run(leases.looked(seen)) == 1
    assert "look_at_ms" not in keyspace(raw)[RECORD]
    assert keyspace(raw)["usher:leases"] == {"dsp_1": seen.alive_till_ms}


def test_a_look_that_is_asked_for_during_another_one_comes_after_it(store: Ledger) -> None:
    joined(store)
    store.run(leases.claim_ended(limit=9, push_s=2))
    store.run(leases.look_again("dsp_1", in_s=5.0))
    before = read(store)
    store.run(leases.look_again("dsp_1", in_s=0.0))

    assert store.run(leases.looked(before)) == 0

    assert store.run(leases.claim_ended(limit=9, push_s=2)) == ["dsp_1"]


def test_without_a_lease_there_is_no_look(store: Ledger, raw: redis.Redis) -> None:
    before = keyspace(raw)

    assert store.run(leases.look_again("ended", in_s=5)) == 0

    assert keyspace(raw) == before
