"""Redis's clock goes back: nothing that the ledger keeps waits for longer than its own time."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from dispatcher.domain import state_machine
from dispatcher.domain.models import Dispatch, Limits, State
from dispatcher.domain.quotas import AT_ONCE, PACE_MS, Admission
from dispatcher.domain.timing import GRACE_S
from dispatcher.errors import LimitReached, TooLate
from dispatcher.ledger import admission, dispatches, leases, outbox, reports
from dispatcher.ledger.admission import InFlight
from dispatcher.ledger.advance import Advance, Provided, Times
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.leases import Renewal
from tests.support.clocks import goes_back
from tests.support.values import AGENT_NAME, a_server, eventually, keyspace, new_dispatch

BACK_S = 30.0
SOON_S = 5.0  # and no half a minute


def read(store: Ledger, dispatch_id: str = "dsp_1") -> Dispatch:
    dispatch = store.run(dispatches.read(dispatch_id))
    assert dispatch is not None
    return dispatch


def create(store: Ledger, dispatch_id: str = "dsp_1", **changes: Any) -> dispatches.Created:
    new = new_dispatch(dispatch_id, room_name=dispatch_id)
    return store.run(dispatches.create(new, **({"due_in_s": 0.3, "detail": {}} | changes)))


def joined(store: Ledger, *, lease_s: float) -> Dispatch:
    create(store)
    for transition in (state_machine.DISPATCH_STARTED, state_machine.ACCEPTED):
        step = dispatches.advance(
            Advance(read(store), transition, due_in_s=9, fields={"job_id": "AJ_1"})
        )
        store.run(step)
    store.run(
        dispatches.advance(Advance(read(store), state_machine.JOINED, times=Times(lease_s=lease_s)))
    )
    return read(store)


def redis_ms(raw: redis.Redis) -> int:
    seconds, microseconds = raw.time()
    return int(seconds * 1000 + microseconds // 1000)


def test_the_ledger_s_clock_is_redis_s(store: Ledger, raw: redis.Redis) -> None:
    before_ms = redis_ms(raw)
    create(store)
    assert before_ms <= store.run(reports.ping()) <= redis_ms(raw)


def test_the_ledger_s_clock_never_goes_back_and_comes_to_agree_with_redis_s(
    store: Ledger, raw: redis.Redis
) -> None:
    create(store)
    before_ms = store.run(reports.ping())

    goes_back(raw, by_s=BACK_S)

    for _ in range(3):
        ahead_ms = store.run(reports.ping()) - redis_ms(raw)
        assert BACK_S - 1 < ahead_ms / 1000 < BACK_S + 1
    assert store.run(reports.ping()) >= before_ms
    noted_ms, was_ms = map(int, str(raw.get("usher:clock")).split())
    raw.set("usher:clock", f"{noted_ms - 1_000_000} {was_ms - 1_000_000}")  # 1,000 s later
    ahead_ms = store.run(reports.ping()) - redis_ms(raw)
    assert BACK_S - 21 < ahead_ms / 1000 < BACK_S - 19  # a fiftieth slower
    raw.set("usher:clock", f"{noted_ms - 2_000_000} {was_ms - 2_000_000}")
    assert abs(store.run(reports.ping()) - redis_ms(raw)) < 1000


async def test_what_is_due_is_found(store: Ledger, raw: redis.Redis) -> None:
    create(store)
    goes_back(raw, by_s=BACK_S)

    step = dispatches.claim_due(limit=9, push_s=9)
    assert await eventually(lambda: store.run(step), within_s=SOON_S) == ["dsp_1"]


async def test_what_waits_after_a_look_is_found_again(store: Ledger, raw: redis.Redis) -> None:
    create(store, due_in_s=0.0)
    assert store.run(dispatches.claim_due(limit=9, push_s=0.3)) == ["dsp_1"]
    goes_back(raw, by_s=BACK_S)

    step = dispatches.claim_due(limit=9, push_s=9)
    assert await eventually(lambda: store.run(step), within_s=SOON_S) == ["dsp_1"]


def test_a_record_has_as_much_time_left_as_before(store: Ledger, raw: redis.Redis) -> None:
    create(store)
    left_s = read(store).remaining_s
    goes_back(raw, by_s=BACK_S)

    # A script notes the clock once a second.
    assert left_s - 3 < read(store).remaining_s <= left_s + 1


def test_a_client_s_pace_is_not_held_up(store: Ledger, raw: redis.Redis) -> None:
    for number in range(AT_ONCE + 10):
        create(store, f"dsp_{number}", admission=Admission(paced=True))
    goes_back(raw, by_s=BACK_S)

    create(store, "dsp_next", admission=Admission(paced=True))

    due_ms = raw.zscore("usher:due", "dsp_next")
    assert due_ms is not None
    assert due_ms - store.run(reports.ping()) <= 11 * PACE_MS


def test_a_client_s_requests_are_not_held_up(store: Ledger, raw: redis.Redis) -> None:
    limits = Limits(requests_per_minute=2)
    for number in range(2):
        create(store, f"dsp_{number}", admission=Admission(limits=limits))
    goes_back(raw, by_s=BACK_S)

    with pytest.raises(LimitReached) as refused:
        create(store, "dsp_next", admission=Admission(limits=limits))

    assert refused.value.retry_after_s <= 30


async def test_an_agent_that_is_lost_is_found(store: Ledger, raw: redis.Redis) -> None:
    joined(store, lease_s=0.3)
    step = leases.claim_ended(limit=9, push_s=9)
    store.run(step)
    goes_back(raw, by_s=BACK_S)

    # With the grace for all, if the tests' own pause counts as one.
    assert await eventually(lambda: store.run(step), within_s=SOON_S + GRACE_S) == ["dsp_1"]


def test_an_agent_that_lives_is_not_lost(store: Ledger, raw: redis.Redis) -> None:
    dispatch = joined(store, lease_s=3)
    goes_back(raw, by_s=BACK_S)

    step = leases.renew(dispatch, job_id="AJ_1", people=1, abandon_after_s=300, deserted_after_s=30)
    assert store.run(step) is Renewal.OK
    found = keyspace(raw)["usher:leases"]["dsp_1"]
    assert 0 < found - store.run(reports.ping()) <= 3000


async def test_who_does_not_report_any_more_is_gone(store: Ledger, raw: redis.Redis) -> None:
    store.run(reports.report_agent_server(a_server(), ttl_s=0.3))
    store.run(reports.report_alive("worker:dispatch", ttl_s=0.3))
    goes_back(raw, by_s=BACK_S)

    def gone() -> bool:
        return not (store.run(reports.agent_servers()) or store.run(reports.alive()))

    assert await eventually(gone, within_s=SOON_S)


async def test_an_event_is_delivered(store: Ledger, raw: redis.Redis) -> None:
    store.run(outbox.want_events(["acme"]))
    joined(store, lease_s=60)
    event = store.run(outbox.read("msg_1_1_joined"))
    assert event is not None
    store.run(outbox.later(event, due_in_s=0.3))
    goes_back(raw, by_s=BACK_S)

    step = outbox.claim(["acme"], limit=9, push_s=9)
    [due] = await eventually(lambda: store.run(step), within_s=SOON_S)
    assert due.event_id == event.event_id


async def test_a_slot_is_not_promised_for_longer(
    store: Ledger, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    create(store)
    short = InFlight(counts_s=0.3, free_slots=1)
    store.run(
        dispatches.advance(
            Advance(read(store), state_machine.DISPATCH_STARTED, due_in_s=9, inflight=short)
        )
    )
    goes_back(raw, by_s=BACK_S)

    step = leases.on_their_way("acme", AGENT_NAME)
    assert await eventually(lambda: store.run(step)[0] == 0, within_s=SOON_S)


def test_fewer_are_sent_at_once_for_no_longer(store: Ledger, raw: redis.Redis) -> None:
    create(store)
    started = admission.start(9)
    store.run(
        dispatches.advance(
            Advance(read(store), state_machine.DISPATCH_STARTED, due_in_s=9, inflight=started)
        )
    )
    store.run(
        dispatches.advance(
            Advance(read(store), state_machine.WAIT, due_in_s=9, inflight=admission.DROPPED)
        )
    )
    goes_back(raw, by_s=BACK_S)

    assert store.run(leases.on_their_way("acme", AGENT_NAME))[1] == admission.LEAST_WINDOW
    assert raw.pttl(f"usher:window:acme:{AGENT_NAME}") <= admission.WINDOW_S * 1000


def test_what_its_caller_has_given_up_is_not_done(store: Ledger, raw: redis.Redis) -> None:
    create(store)
    before = keyspace(raw)
    not_after_ms = store.run(reports.ping()) - 1

    with pytest.raises(TooLate):
        create(store, "dsp_2", not_after_ms=not_after_ms)
    cancelled = dispatches.advance(
        Advance(read(store), state_machine.CANCEL, provided=Provided(not_after_ms=not_after_ms))
    )
    assert store.run(cancelled).outcome == "late"

    assert keyspace(raw) == before
    assert create(store, "dsp_2", not_after_ms=not_after_ms + 60_000).new


def test_until_when_a_caller_waits_is_told_by_the_ledger_s_clock(
    store: Ledger, raw: redis.Redis
) -> None:
    create(store)
    goes_back(raw, by_s=BACK_S)

    not_after_ms = store.not_after_ms()

    assert not_after_ms is not None
    left_ms = not_after_ms - store.run(reports.ping())
    assert 0 < left_ms <= store.in_time_s * 1000 + 500  # how long Redis took to tell the time
    assert read(store).state is State.QUEUED
