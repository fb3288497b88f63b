"""Is everything counted, exactly as often as it has happened, and is it there in every window?"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import redis

from dispatcher.domain import models, state_machine
from dispatcher.domain.metrics import AgentCounts, ClientFigures, Figures, Window
from dispatcher.domain.models import DispatchRef, RememberedDispatch, State, Transition
from dispatcher.ledger import dispatches, keys, reports, restoring
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.endings import cancel
from dispatcher.ledger.statistics import EVERY, NOT_OURS, figures, health, read
from dispatcher.ledger.step import Step
from tests.support.recount import differences, recount
from tests.support.values import AGENT_NAME, a_server, counters, new_dispatch

CLIENTS = ("acme", "globex")
REASONS = ("no_agent_online", "rejected: full", "join_timeout")
BOX = keys.agent_metrics("acme", "box-1", AGENT_NAME)
REF = DispatchRef(
    dispatch_id="dsp_1", client_id="acme", room_name="room-1", agent_name=AGENT_NAME, generation=1
)
TRANSITIONS = [value for value in vars(state_machine).values() if isinstance(value, Transition)]
ONWARD = (
    state_machine.DISPATCH_STARTED,
    state_machine.DISPATCH_CREATED,
    state_machine.ACCEPTED,
    state_machine.JOINED,
)


class Walk:
    """Random steps on a dozen rooms, carried out as the product does, valid or not."""

    def __init__(self, store: Ledger, seed: int) -> None:
        self._random = random.Random(seed)
        self._store = store
        self._known: dict[str, DispatchRef] = {}
        self.of_box: Counter[str] = Counter()

    def step(self) -> None:
        choice = self._random.random()
        if choice < 0.1 or not self._known:
            self._create()
        elif choice < 0.13:
            self._restore()
        elif choice < 0.15:
            dispatch = self._store.run(dispatches.read(self._random.choice(list(self._known))))
            assert dispatch is not None
            self._store.run(cancel(dispatch, retention_s=600))
        else:
            self._advance()

    def _names(self) -> dict[str, Any]:
        dispatch_id = f"dsp_{len(self._known)}"
        room_name = f"room-{self._random.randrange(12)}"
        return {
            "dispatch_id": dispatch_id,
            "client_id": self._random.choice(CLIENTS),
            "room_name": room_name,
        }

    def _create(self) -> None:
        names = self._names()
        created = self._store.run(dispatches.create(new_dispatch(**names), due_in_s=2, detail={}))
        if created.new:
            ref = DispatchRef(agent_name=AGENT_NAME, generation=1, **names)
            self._known[created.dispatch_id] = ref

    def _restore(self) -> None:
        names = self._names()
        state = self._random.choice((State.QUEUED, State.DELEGATED, State.ACCEPTED))
        remembered = RememberedDispatch(
            agent_name=AGENT_NAME,
            generation=1,
            state=state,
            container="",
            agent_metadata="",
            age_ms=self._random.randrange(5000),
            deadline_ms=20_000,
            **names,
        )
        step = restoring.restore(remembered, by="test", retention_s=600)
        # The recount has to know in which state: the product's timeline need not say so.
        args = list(step.args)
        args[5] = f'{{"state": "{state}"}}'
        self._store.run(Step(step.script_name, step.keys, tuple(args), step.parse))
        self._known[names["dispatch_id"]] = DispatchRef(
            agent_name=AGENT_NAME, generation=1, **names
        )

    def _transition(self, state: State) -> Transition:
        """Mostly one that goes on, sometimes another possible one, now and then any."""
        onward = [each for each in ONWARD if state in each.moves | each.notes]
        possible = [each for each in TRANSITIONS if state in each.moves | each.notes]
        chance = self._random.random()
        if chance < 0.7 and onward:
            return self._random.choice(onward)
        return self._random.choice(possible if chance < 0.95 and possible else TRANSITIONS)

    def _advance(self) -> None:
        ref = self._known[self._random.choice(list(self._known))]
        dispatch = self._store.run(dispatches.read(ref.dispatch_id))
        assert dispatch is not None
        transition = self._transition(dispatch.state)
        generation = dispatch.generation - (self._random.random() < 0.1)
        more = self._more(transition, dispatch)
        offered = transition in (state_machine.ACCEPTED, state_machine.REJECTED)
        step = dispatches.advance(
            Advance(
                DispatchRef(**{**vars(ref), "generation": generation}),
                transition,
                times=Times(
                    retention_s=600,
                    deadline_in_s=20.0
                    if transition in (state_machine.REDISPATCH, state_machine.AGENT_LOST)
                    else None,
                ),
                due_in_s=1.0,
                offered_ago_s=0.0 if offered else None,
                **more,
            )
        )
        done = self._store.run(step)
        if done.applied and "agent_counts" in more:
            self.of_box.update(more["agent_counts"].increments)

    def _more(self, transition: Transition, dispatch: models.Dispatch) -> dict[str, Any]:
        detail: dict[str, str] = {}
        more: dict[str, Any] = {"detail": detail}
        if transition.event in ("dispatched", "livekit_unreachable") or (
            transition is state_machine.FAILED and self._random.random() < 0.3
        ):
            detail["tries"] = str(self._random.randrange(1, 4))
            if not dispatch.attempt.tries:
                more["attempt"] = {"tries": detail["tries"]}
            else:
                del detail["tries"]
        if transition is state_machine.FAILED:
            detail["reason"] = self._random.choice(REASONS)
            more["fields"] = {"failure_reason": detail["reason"]}
        if transition is state_machine.JOINED:
            joined_at_ms = dispatch.read_at_ms - self._random.randrange(50)
            detail["joined_at_ms"] = str(joined_at_ms)
            detail["time_to_join_ms"] = str(self._random.randrange(70_000))
            more["fields"] = dict(detail)
        if transition is state_machine.AGENT_LEFT:
            detail["state"] = "ended"
        if transition is state_machine.AGENT_LOST and self._random.random() < 0.5:
            detail["people"] = "0"
            more["fields"] = {"unattended": "1"}
        if transition is state_machine.ACCEPTED:
            more["agent_counts"] = AgentCounts(key=BOX, increments={"accepts:claimed": 1})
        return more


def of(found: Figures, client_id: str) -> ClientFigures:
    (client,) = (each for each in found.clients if each.client_id == client_id)
    return client


@pytest.mark.parametrize(
    "seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 8))]
)
def test_after_a_random_walk_every_number_is_as_the_records_tell(
    seed: int, store: Ledger, raw: redis.Redis
) -> None:
    walk = Walk(store, seed)
    for _ in range(800):
        walk.step()

    mine = recount(raw)
    assert sum(each.counts["joined"] for each in mine.values()) > 10, "the walk went nowhere"
    for window in (Window.ALL, Window.HOUR, Window.DAY):
        found = store.run(figures(window, CLIENTS))
        for client_id in CLIENTS:
            assert differences(of(found, client_id), mine[client_id]) == [], (window, client_id)
    for client_id in CLIENTS:
        counters(raw, keys.dispatch_metrics(client_id))  # the buckets add up
    assert counters(raw, BOX) == walk.of_box


def test_a_parked_record_is_no_session_any_more(store: Ledger, raw: redis.Redis) -> None:
    store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))
    store.run(reports.park("dsp_1", "unreadable"))

    (acme,) = store.run(figures(Window.ALL, ["acme"])).clients
    assert sum(acme.states.values()) == 0
    assert store.run(health()).parked == 1


def test_what_many_count_at_once_adds_up(store: Ledger, raw: redis.Redis) -> None:
    full = AgentCounts(key=BOX, increments={"rejects:full": 1})

    def one(number: int) -> None:
        new = new_dispatch(f"dsp_{number}", room_name=f"room-{number}")
        store.run(dispatches.create(new, due_in_s=2, detail={}))
        store.run(reports.count(f"server-{number % 8}", number // 8 + 1, [full]))

    with ThreadPoolExecutor(8) as pool:  # a server's batches come in turn, the servers at once
        list(pool.map(lambda n: [one(m) for m in range(n, 200, 8)], range(8)))

    found = of(store.run(figures(Window.HOUR, ["acme"])), "acme")
    assert (found.dispatches, found.states[State.QUEUED]) == (200, 200)
    assert counters(raw, BOX) == {"rejects:full": 200}


def test_a_try_that_is_told_again_is_no_second_one(store: Ledger, raw: redis.Redis) -> None:
    store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))
    store.run(dispatches.advance(Advance(REF, state_machine.DISPATCH_STARTED)))
    store.run(dispatches.advance(Advance(REF, state_machine.ACCEPTED)))
    created = dispatches.advance(
        Advance(REF, state_machine.DISPATCH_CREATED, attempt={"tries": "2"})
    )

    assert [store.run(created).outcome for _ in range(2)] == ["noted", "noted"]

    found = of(store.run(figures(Window.ALL, ["acme"])), "acme")
    assert (found.attempts, found.dispatched) == (2, 1)


def test_what_is_told_twice_counts_once(store: Ledger, raw: redis.Redis) -> None:
    store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))
    store.run(dispatches.advance(Advance(REF, state_machine.DISPATCH_STARTED)))
    store.run(dispatches.advance(Advance(REF, state_machine.ACCEPTED)))
    connected = dispatches.advance(
        Advance(
            REF,
            state_machine.AGENT_CONNECTED,
            agent_counts=AgentCounts(key=BOX, increments={"joins": 1}),
            count_once="joined:AJ_1",
        )
    )

    assert [store.run(connected).applied for _ in range(3)] == [True] * 3

    assert counters(raw, BOX) == {"joins": 1}


def age(client: redis.Redis, *, minutes: int) -> None:
    """Have everything that was counted lie so long back (a whole number of quarters of an hour).

    What Redis would have forgotten by then is gone.
    """
    now_minute = client.time()[0] // 60
    for key in list(client.scan_iter("usher:metrics:*:open")):
        was = int(client.get(key) or 0)
        client.rename(f"{key}:{was}", f"{key}:{was - minutes}")
        client.set(key, was - minutes)
    for unit, per, kept in (("minute", 1, 120), ("quarter", 15, 25 * 60)):
        for key in list(client.scan_iter(f"usher:metrics:*:{unit}:*")):
            name, _, number = key.rpartition(":")
            then = int(number) - minutes // per
            client.rename(key, f"{name}:{then}")
            if (now_minute - kept) // per > then:
                client.delete(f"{name}:{then}")


def counted(store: Ledger) -> dict[str, tuple[int, int]]:
    """Dispatches of acme, and rejects of its box, in each window."""
    answer = {}
    for window in Window:
        found = read(store, window, ["acme"])
        assert replace(found, at_ms=0) == replace(store.run(figures(window, ["acme"])), at_ms=0)
        rejects = sum(agent.rejects for agent in found.agents)
        answer[window.value] = (of(found, "acme").dispatches, rejects)
    return answer


def test_a_window_has_what_has_happened_in_it_and_no_more(store: Ledger, raw: redis.Redis) -> None:
    def another(number: int) -> None:
        new = new_dispatch(f"dsp_{number}", room_name=f"room-{number}")
        store.run(dispatches.create(new, due_in_s=2, detail={}))
        full = AgentCounts(key=BOX, increments={"rejects:full": 1})
        store.run(reports.count("server-1", number, [full]))

    another(1)
    assert counted(store) == {"5m": (1, 1), "1h": (1, 1), "1d": (1, 1), "all": (1, 1)}
    age(raw, minutes=30)
    another(2)
    assert counted(store) == {"5m": (1, 1), "1h": (2, 2), "1d": (2, 2), "all": (2, 2)}
    age(raw, minutes=90)
    another(3)
    assert counted(store) == {"5m": (1, 1), "1h": (1, 1), "1d": (3, 3), "all": (3, 3)}
    age(raw, minutes=24 * 60 + 15)
    assert counted(store) == {"5m": (0, 0), "1h": (0, 0), "1d": (0, 0), "all": (3, 3)}


def test_the_first_count_of_a_minute_moves_the_one_before_to_the_totals(
    store: Ledger, raw: redis.Redis
) -> None:
    def reject(number: int) -> None:
        counts = AgentCounts(key=BOX, increments={"rejects:full": 2, "joins": 1})
        store.run(reports.count("server-1", number, [counts]))

    reject(1)
    assert not raw.exists(BOX)
    age(raw, minutes=1)
    reject(2)
    reject(3)

    assert raw.hgetall(BOX) == {"rejects:full": "2", "joins": "1"}
    assert counters(raw, BOX) == {"rejects:full": 6, "joins": 3}
    lately = [*raw.scan_iter("*:minute:*"), *raw.scan_iter("*:quarter:*")]
    assert len(lately) == 2
    assert all(0 < raw.ttl(key) <= 90_000 for key in lately)


def test_counts_of_an_older_release_are_added_to(store: Ledger, raw: redis.Redis) -> None:
    """It writes each count at once to the totals and to the hashes of minute and quarter."""
    one = AgentCounts(key=BOX, increments={"rejects:full": 1})
    store.run(reports.count("server-1", 1, [one]))
    minute = int(raw.get(f"{BOX}:open") or 0)
    for key in (BOX, f"{BOX}:minute:{minute}", f"{BOX}:quarter:{minute // 15}"):
        raw.hincrby(key, "rejects:full", 1)
        raw.expire(key, 7200)
    assert [found[1] for found in counted_rejects(store)] == [2, 2, 2, 2]
    age(raw, minutes=30)
    store.run(reports.count("server-1", 2, [one]))

    assert counters(raw, BOX) == {"rejects:full": 3}


def counted_rejects(store: Ledger) -> list[tuple[str, int]]:
    """Rejects of the box in each window."""
    return [
        (window, sum(agent.rejects for agent in read(store, window, ["acme"]).agents))
        for window in Window
    ]


def test_a_window_begins_where_its_buckets_do(store: Ledger, raw: redis.Redis) -> None:
    for window, bucket_ms in (
        (Window.MINUTES, 60_000),
        (Window.HOUR, 60_000),
        (Window.DAY, 900_000),
    ):
        found = store.run(figures(window, ["acme"]))
        length_ms = found.at_ms - found.since_ms
        assert found.since_ms % bucket_ms == 0
        assert window.minutes * 60_000 <= length_ms < window.minutes * 60_000 + bucket_ms
    assert store.run(figures(Window.ALL, ["acme"])).since_ms == 0


@pytest.mark.parametrize("minute", range(0, 16, 3))
def test_every_minute_is_in_a_window_once(minute: int, store: Ledger, raw: redis.Redis) -> None:
    """Whichever quarters of an hour the window is put together of."""
    at_ms = store.run(reports.ping())
    now = at_ms // 60_000
    for at in range(now - 62, now + 1):  # as if one had been asked for in each minute
        raw.hincrby(f"usher:metrics:dispatch:acme:minute:{at}", "dispatches", 1)
        raw.hincrby(f"usher:metrics:dispatch:acme:quarter:{at // 15}", "dispatches", 1)

    found = store.run(figures(Window.HOUR, ["acme"]))

    whole_minutes = found.at_ms // 60_000 - found.since_ms // 60_000
    new_one = found.at_ms // 60_000 - now  # a minute may have begun meanwhile: nothing is in it
    assert of(found, "acme").dispatches == whole_minutes + 1 - new_one == 61 - new_one


def test_nobody_reads_anothers_numbers(store: Ledger, raw: redis.Redis) -> None:
    for client_id in ("acme", "globex", ""):
        key = keys.agent_metrics(client_id, "box:1", AGENT_NAME)
        one = AgentCounts(key=key, increments={"rejects:full": 1})
        store.run(reports.count(f"server-of-{client_id}", 1, [one]))

    def seen(*client_ids: str) -> list[tuple[str, str]]:
        found = store.run(figures(Window.ALL, client_ids))
        return [(agent.client_id, agent.container) for agent in found.agents]

    assert seen("acme") == [("acme", "box:1")]
    assert seen(NOT_OURS) == [("", "box:1")]
    assert seen("nobody") == []
    assert seen(EVERY) == [("", "box:1"), ("acme", "box:1"), ("globex", "box:1")]


def test_of_too_many_agent_servers_the_rest_is_counted_together(
    store: Ledger, raw: redis.Redis
) -> None:
    raw.zadd("usher:metrics:agents", {f"usher:metrics:agent:x:{n}:a": 1e15 for n in range(1000)})
    one = AgentCounts(key=BOX, increments={"rejects:full": 1})

    store.run(reports.count("server-1", 1, [one]))

    assert not raw.exists(BOX)
    assert counters(raw, "usher:metrics:agent:::") == {"rejects:full": 1}
    assert raw.zcard("usher:metrics:agents") == 1001


def test_what_was_not_counted_for_a_month_makes_room(store: Ledger, raw: redis.Redis) -> None:
    raw.zadd("usher:metrics:agents", {f"usher:metrics:agent:x:{n}:a": 1 for n in range(1000)})
    one = AgentCounts(key=BOX, increments={"rejects:full": 1})

    store.run(reports.count("server-1", 1, [one]))

    assert raw.zrange("usher:metrics:agents", 0, -1) == [BOX]


def test_a_day_of_many_containers_is_read_without_holding_redis_up(
    store: Ledger, raw: redis.Redis
) -> None:
    quarter = store.run(reports.ping()) // 900_000
    containers = {f"box-{number}" for number in range(200)}
    writes = raw.pipeline()
    for container in containers:
        key = keys.agent_metrics("acme", container, AGENT_NAME)
        writes.zadd("usher:metrics:agents", {key: (quarter + 1) * 900_000})
        for at in range(quarter - 96, quarter + 1):
            writes.hset(f"{key}:quarter:{at}", "rejects:full", 1)
    writes.execute()
    raw.config_set("slowlog-log-slower-than", 0)
    raw.config_set("slowlog-max-len", 1000)

    def took_us(look: Callable[[], Figures]) -> tuple[Figures, int]:
        raw.slowlog_reset()
        found = look()
        return found, max(entry["duration"] for entry in raw.slowlog_get(1000))

    whole, at_once_us = took_us(lambda: store.run(figures(Window.DAY, ["acme"])))
    found, at_most_us = took_us(lambda: read(store, Window.DAY, ["acme"]))
    raw.config_set("slowlog-log-slower-than", 10_000)

    assert {agent.container for agent in found.agents} == containers
    assert replace(found, at_ms=0) == replace(whole, at_ms=0)
    assert at_most_us < at_once_us / 3


def test_health_tells_what_waits_and_who_is_there(store: Ledger, raw: redis.Redis) -> None:
    now_ms = store.run(reports.ping())
    store.run(reports.report_agent_server(a_server("b"), ttl_s=600))
    store.run(reports.report_agent_server(a_server("a"), ttl_s=600))
    for part in ("worker:dispatch", "livekit:acme", "sweeper"):
        store.run(reports.report_alive(part, ttl_s=600))
    raw.zadd("usher:waiting", {"dsp_1": now_ms - 5000, "dsp_2": now_ms})
    raw.zadd("usher:due", {"dsp_1": now_ms - 3000, "dsp_2": now_ms + 600_000})
    raw.set("usher:leases:looked_at", now_ms - 700)
    raw.rpush("verify", "a message", "another")
    raw.hset("usher:metrics:ledger", "data_losses", 2)

    found = store.run(health())

    late_ms = found.at_ms - now_ms
    assert [server.agent_server_id for server in found.agent_servers] == ["a", "b"]
    assert (found.workers, found.livekit) == ({"dispatch"}, {"acme"})
    assert found.sweeper_alive
    assert (found.waiting, found.oldest_waiting_ms) == (2, 5000 + late_ms)
    assert (found.overdue, found.oldest_overdue_ms) == (1, 3000 + late_ms)
    assert found.sweeper_silent_ms == 700 + late_ms
    assert found.queues == {"dispatch": 0, "verify": 2, "sweep": 0, "webhooks": 0}
    assert (found.parked, found.data_losses) == (0, 2)


def test_of_an_empty_redis_everything_is_nothing(store: Ledger, raw: redis.Redis) -> None:
    found = store.run(figures(Window.ALL, [*CLIENTS, NOT_OURS]))
    assert [each.client_id for each in found.clients] == list(CLIENTS)
    assert all(each.success_rate is None for each in found.clients)
    assert found.agents == ()
    assert store.run(health()).sweeper_silent_ms is None
    assert not re.search("usher:metrics", " ".join(raw.scan_iter()))
