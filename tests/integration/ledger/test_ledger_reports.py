"""Who is looked at next, who is at work, and for how long does a report count?"""

from __future__ import annotations

import redis

from dispatcher.domain.metrics import AgentCounts
from dispatcher.ledger import dispatches, keys, reports
from dispatcher.ledger.client import Ledger
from tests.support.clocks import goes_back
from tests.support.values import a_server, counters, eventually, keyspace


def due_in(raw: redis.Redis, store: Ledger, **seconds: float) -> int:
    """Put dispatch ids on the due list; returns Redis's clock in ms."""
    now_ms = store.run(reports.ping())
    raw.zadd("usher:due", {name: now_ms + int(value * 1000) for name, value in seconds.items()})
    return now_ms


def test_what_is_due_is_taken_oldest_first_and_no_more_than_the_limit(
    store: Ledger, raw: redis.Redis
) -> None:
    due_in(raw, store, later=60, third=-1, first=-9, second=-5)

    assert store.run(dispatches.claim_due(limit=2, push_s=30)) == ["first", "second"]
    assert store.run(dispatches.claim_due(limit=2, push_s=30)) == ["third"]
    assert store.run(dispatches.claim_due(limit=2, push_s=30)) == []


def test_what_is_taken_is_due_again_after_the_push(store: Ledger, raw: redis.Redis) -> None:
    before_ms = due_in(raw, store, mine=-1, later=60)

    store.run(dispatches.claim_due(limit=9, push_s=30))

    after_ms = store.run(reports.ping())
    found = keyspace(raw)
    assert before_ms + 30_000 <= found["usher:due"]["mine"] <= after_ms + 30_000
    assert found == {"usher:due": {"mine": found["usher:due"]["mine"], "later": before_ms + 60_000}}


def test_with_a_long_queue_what_waits_in_it_is_left_to_its_own_message(
    store: Ledger, raw: redis.Redis
) -> None:
    now_ms = due_in(raw, store, queued=-3, sent=-2, late=-1)
    for name, state, left_s in (
        ("queued", "queued", 9),
        ("sent", "dispatched", 9),
        ("late", "queued", 1),
    ):
        record = {"state": state, "deadline_at_ms": now_ms + 1000 * left_s, "client_id": "demo"}
        raw.hset(f"usher:dispatch:{name}", mapping=record)
    raw.rpush("dispatch", "a message", "another")

    assert store.run(dispatches.claim_due(limit=2, push_s=5)) == ["sent", "late"]
    assert raw.zscore("usher:due", "queued") >= now_ms + 5000

    raw.delete("dispatch")
    due_in(raw, store, queued=-3)
    assert store.run(dispatches.claim_due(limit=2, push_s=5)) == ["queued"]


async def test_what_was_pushed_comes_back(store: Ledger, raw: redis.Redis) -> None:
    due_in(raw, store, mine=-1)
    store.run(dispatches.claim_due(limit=9, push_s=0.05))

    assert await eventually(lambda: store.run(dispatches.claim_due(limit=9, push_s=30))) == ["mine"]


def test_taking_from_an_empty_list_writes_nothing(store: Ledger, raw: redis.Redis) -> None:
    assert store.run(dispatches.claim_due(limit=9, push_s=30)) == []
    assert keyspace(raw) == {}


def test_deferring_moves_what_is_listed_and_lists_nothing_else(
    store: Ledger, raw: redis.Redis
) -> None:
    before_ms = due_in(raw, store, mine=-1)

    store.run(dispatches.defer("mine", due_in_s=5))
    store.run(dispatches.defer("ended", due_in_s=5))

    found = keyspace(raw)["usher:due"]
    assert list(found) == ["mine"]
    assert before_ms + 5000 <= found["mine"] <= store.run(reports.ping()) + 5000


def test_a_report_reads_back_as_it_was_written(store: Ledger, raw: redis.Redis) -> None:
    first, second = a_server("server-1", container="bóx:1"), a_server("server-2", draining=True)

    for report in (first, second):
        store.run(reports.report_agent_server(report, ttl_s=60))

    assert sorted(store.run(reports.agent_servers()), key=lambda r: r.agent_server_id) == [
        first,
        second,
    ]
    assert {key: sorted(value) for key, value in keyspace(raw).items()} == {
        "usher:agent_servers": ["server-1", "server-2"]
    }


def test_a_new_report_replaces_the_last_one(store: Ledger) -> None:
    for used_slots in (1, 2):
        report = a_server(used_slots=used_slots)
        store.run(reports.report_agent_server(report, ttl_s=60))

    assert store.run(reports.agent_servers()) == [report]


async def test_a_report_that_is_not_renewed_is_gone(store: Ledger, raw: redis.Redis) -> None:
    store.run(reports.report_agent_server(a_server("lost"), ttl_s=0.1))
    store.run(reports.report_agent_server(a_server("here"), ttl_s=60))

    await eventually(lambda: store.run(reports.agent_servers()) == [a_server("here")])

    assert list(keyspace(raw)["usher:agent_servers"]) == ["here"]


def test_a_report_taken_away_is_gone_at_once(store: Ledger, raw: redis.Redis) -> None:
    store.run(reports.report_agent_server(a_server(), ttl_s=60))
    store.run(reports.report_agent_server(a_server(), ttl_s=0))

    assert store.run(reports.agent_servers()) == []
    assert keyspace(raw) == {}


async def test_a_part_is_alive_for_as_long_as_it_says_so(store: Ledger) -> None:
    store.run(reports.report_alive("worker:dispatch", ttl_s=60))
    store.run(reports.report_alive("sweeper", ttl_s=0.1))

    await eventually(lambda: store.run(reports.alive()) == frozenset({"worker:dispatch"}))


def test_counters_add_up(store: Ledger, raw: redis.Redis) -> None:
    full = AgentCounts(
        key=keys.agent_metrics("acme", "box:1", "agent"), increments={"joins": 1, "rejects:full": 2}
    )

    for number in (1, 2):
        assert store.run(reports.count("server-1", number, [full])) == 1

    key = "usher:metrics:agent:acme:box%3A1:agent"
    assert counters(raw, key) == {"joins": 2, "rejects:full": 4}
    assert all(0 < raw.ttl(each) <= 30 * 86_400 for each in raw.scan_iter(f"{key}:open*"))
    assert raw.zrange("usher:metrics:agents", 0, -1) == [key]


def test_a_batch_that_is_sent_again_is_counted_once(store: Ledger, raw: redis.Redis) -> None:
    key = keys.agent_metrics("acme", "box-1", "agent")
    one = AgentCounts(key=key, increments={"rejects:full": 1})

    sent = [store.run(reports.count("server-1", number, [one])) for number in (1, 1, 2, 1, 2)]
    others = store.run(reports.count("server-2", 1, [one]))

    assert (sent, others) == ([1, 0, 1, 0, 0], 1)
    assert counters(raw, key) == {"rejects:full": 3}


def test_of_sweeps_that_have_waited_for_a_worker_one_is_done(
    store: Ledger, raw: redis.Redis
) -> None:
    step = reports.begin_sweep(pause_s=0.25)

    assert [store.run(step) for _ in range(5)] == [True] + [False] * 4
    assert store.run(reports.alive()) == {"sweeper"}
    goes_back(raw, by_s=-0.3)  # so much later
    assert [store.run(step) for _ in range(2)] == [True, False]
    goes_back(raw, by_s=30)
    goes_back(raw, by_s=-0.3)
    assert store.run(step)
