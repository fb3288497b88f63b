"""Does each client keep to what it may ask for, whichever way it asks, at nobody else's cost?"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import redis
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from dispatcher.domain import models, state_machine
from dispatcher.domain.models import Dispatch, State
from dispatcher.domain.quotas import AT_ONCE, PACE_MS, Admission
from dispatcher.errors import Overloaded, RedispatchRefused
from dispatcher.ledger import celery_messages, dispatches, endings, reports
from dispatcher.ledger.advance import Advance, Provided, Times
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.dispatches import Created
from dispatcher.ledger.step import Step
from dispatcher.lifecycle.redispatching import redispatch
from tests.support.clientsfile import Open, a_client, a_key
from tests.support.house import OpenServices, Request
from tests.support.ledgers import run_steps
from tests.support.values import counters, new_dispatch
from web.api.redispatch import AGAIN_MS

BACKLOG = 12
URL = "/api/v1/dispatches"
KEPT_ATTEMPTS = 50


class Door:
    """The application, as acme's backend sees it."""

    def __init__(self, http: FlaskClient, raw: redis.Redis) -> None:
        self._http = http
        self._raw = raw

    def _call(self, method: str, path: str = "", **body: Any) -> TestResponse:
        headers = {"Authorization": "Bearer acme-secret"}
        return self._http.open(f"{URL}{path}", method=method, headers=headers, **body)

    def ask(self, room: str) -> str:
        """A new session; returns its id."""
        response = self._call("POST", json={"room_name": room})
        assert response.status_code == 200
        dispatch_id: str = response.json["dispatch_id"]
        return dispatch_id

    def cancel(self, dispatch_id: str) -> None:
        assert self._call("DELETE", f"/{dispatch_id}").status_code == 200

    def redispatch(self, dispatch_id: str, *, after_ms: int = AGAIN_MS) -> TestResponse:
        """Send it again, so much later."""
        self._raw.hincrby(f"usher:dispatch:{dispatch_id}", "requested_at_ms", -after_ms)
        return self._call("POST", f"/{dispatch_id}/redispatch")


@pytest.fixture
def door_for(open_with: Open, raw: redis.Redis) -> Callable[[str], Door]:
    """Opens the application for acme with these limits, and for a neighbour."""

    def open_(limits: str) -> Door:
        acme = a_client("acme", a_key("acme", "acme-secret"), more=limits)
        http = open_with(acme + a_client("globex", a_key("globex", "globex-secret")))
        return Door(http, raw)

    return open_


def ask(store: Ledger, client_id: str, number: int, *, backlog: int = BACKLOG) -> Created:
    new = new_dispatch(f"dsp_{client_id}_{number}", client_id=client_id, room_name=f"room-{number}")
    return store.run(
        dispatches.create(new, due_in_s=2.0, detail={}, admission=Admission(max_backlog=backlog))
    )


def read(store: Ledger, dispatch_id: str) -> Dispatch:
    dispatch = store.run(dispatches.read(dispatch_id))
    assert dispatch is not None
    return dispatch


def accepted(store: Ledger, client_id: str, most: int = 100) -> int:
    """How many sessions that client gets in a row."""
    for number in range(most):
        try:
            ask(store, client_id, number)
        except Overloaded:
            return number
    return most


def test_what_one_client_has_cancelled_costs_nobody_a_refusal(
    store: Ledger, raw: redis.Redis
) -> None:
    for number in range(3 * BACKLOG):
        created = ask(store, "acme", number)
        dispatch = read(store, created.dispatch_id)
        # LiveKit has been asked for it, so somebody has to look into its room.
        store.run(
            dispatches.advance(Advance(dispatch, state_machine.DISPATCH_STARTED, due_in_s=12))
        )
        store.run(endings.cancel(dispatch, retention_s=60))
    assert raw.zcard("usher:due") == 3 * BACKLOG

    assert ask(store, "acme", 1000).new
    assert ask(store, "globex", 1).new


def test_each_client_has_its_share_of_what_may_be_on_its_way(store: Ledger) -> None:
    assert accepted(store, "acme") == BACKLOG  # alone it has all of it
    assert accepted(store, "globex") == BACKLOG / 2
    assert accepted(store, "initech") == BACKLOG / 3
    with pytest.raises(Overloaded):
        ask(store, "acme", 1000)


def test_who_has_none_on_their_way_any_more_has_no_share(store: Ledger, raw: redis.Redis) -> None:
    ask(store, "globex", 1)
    dispatch = read(store, "dsp_globex_1")
    store.run(dispatches.advance(Advance(dispatch, state_machine.DISPATCH_STARTED, due_in_s=12)))
    assert store.run(
        dispatches.advance(Advance(dispatch, state_machine.JOINED, times=Times(lease_s=60)))
    ).moved
    assert accepted(store, "acme") == BACKLOG

    # Both were looked at when the limit was reached.
    assert raw.smembers("usher:busy") == {"usher:sessions:acme"}


def test_what_livekit_was_never_asked_for_is_cancelled_without_a_look(
    store: Ledger, raw: redis.Redis
) -> None:
    ask(store, "acme", 1)

    done = store.run(endings.cancel(read(store, "dsp_acme_1"), retention_s=60))

    assert done.moved
    after = read(store, "dsp_acme_1")
    assert (after.state, after.clearing) == (State.CANCELLED, False)
    assert raw.zcard("usher:due") == raw.llen("verify") == 0


def test_who_cancels_many_beside_another_client_does_not_fill_the_queue(
    door_for: Callable[[str], Door], raw: redis.Redis, store: Ledger
) -> None:
    door = door_for("")
    first, second = door.ask("room-1"), door.ask("room-2")
    for dispatch_id in (first, second):
        raw.hset(f"usher:dispatch:{dispatch_id}", "state", "waiting")

    door.cancel(first)
    assert raw.llen("verify") == 1

    # So many later that the next one's turn comes in some seconds:
    raw.set("usher:clearing_pace:acme", store.run(reports.ping()) + 6000)
    door.cancel(second)
    assert raw.llen("verify") == 1
    assert raw.zscore("usher:due", second)  # where the sweeper finds it


def woken(raw: redis.Redis) -> list[str]:
    """Whom the messages in the queue of the dispatch workers are for."""
    queued = (json.loads(text) for text in raw.lrange("dispatch", 0, -1))
    return [json.loads(message["body"])[1]["dispatch_id"] for message in queued]


def test_sent_again_it_is_one_more_session(door_for: Callable[[str], Door]) -> None:
    door = door_for("max_sessions = 1")
    first = door.ask("room-1")
    door.cancel(first)
    door.ask("room-2")

    refused = door.redispatch(first)

    assert refused.status_code == 429
    assert "at most 1 sessions at once" in refused.json["detail"]
    assert int(refused.headers["Retry-After"]) >= 1


def test_cancelled_and_sent_again_in_a_loop_each_is_a_request(
    door_for: Callable[[str], Door],
) -> None:
    door = door_for("requests_per_minute = 10")
    dispatch_id = door.ask("room-1")
    codes = []
    for _ in range(30):
        door.cancel(dispatch_id)
        codes.append(door.redispatch(dispatch_id).status_code)

    assert codes[:9] == [202] * 9
    assert codes.count(202) <= 11  # and what the bucket was refilled with meanwhile
    assert set(codes) == {202, 429}


def test_what_was_asked_for_just_now_is_not_sent_again_yet(
    door_for: Callable[[str], Door], raw: redis.Redis
) -> None:
    door = door_for("")
    dispatch_id = door.ask("room-1")
    door.cancel(dispatch_id)
    assert door.redispatch(dispatch_id).status_code == 202  # a second later
    door.cancel(dispatch_id)
    messages = woken(raw)

    refused = door.redispatch(dispatch_id, after_ms=AGAIN_MS // 2)

    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    assert woken(raw) == messages
    assert raw.hget(f"usher:dispatch:{dispatch_id}", "generation") == "2"


AHEAD_S = 8


@pytest.fixture
def ahead(raw: redis.Redis, store: Ledger) -> None:
    """acme has asked for so many that the next one's turn comes in some seconds."""
    raw.set("usher:pace:acme", store.run(reports.ping()) + AHEAD_S * 1000)


def test_beside_another_client_what_is_sent_again_waits_for_its_turn(
    door_for: Callable[[str], Door], raw: redis.Redis, store: Ledger, ahead: None
) -> None:
    door = door_for("")
    dispatch_id = door.ask("room-1")
    assert woken(raw) == []
    door.cancel(dispatch_id)

    assert door.redispatch(dispatch_id).status_code == 202

    assert woken(raw) == []  # the sweeper wakes it in its time
    due_in_s = (raw.zscore("usher:due", dispatch_id) - store.run(reports.ping())) / 1000
    assert AHEAD_S - 3 < due_in_s <= AHEAD_S


def test_asking_again_and_again_for_one_that_is_joined_is_refused(
    door_for: Callable[[str], Door], raw: redis.Redis, ahead: None
) -> None:
    door = door_for("")
    dispatch_id = door.ask("room-1")
    raw.hset(f"usher:dispatch:{dispatch_id}", "state", "joined")

    refused = door.redispatch(dispatch_id)

    assert refused.status_code == 429
    assert AHEAD_S - 3 < int(refused.headers["Retry-After"]) <= AHEAD_S
    assert raw.llen("dispatch") == 0  # nobody has to ask LiveKit for it


def test_cancelled_and_sent_again_in_a_loop_it_does_not_fill_the_queues(
    store: Ledger, raw: redis.Redis
) -> None:
    ask(store, "acme", 1)
    made = read(store, "dsp_acme_1")
    admission = Admission(limits=models.NO_LIMITS, paced=True, max_backlog=BACKLOG)
    loop: list[Step[Any]] = []
    for generation in range(1, 20 * AT_ONCE + 1):
        loop.append(endings.cancel(made, retention_s=60, paced=True))
        again = dispatches.advance(
            Advance(
                replace(made, generation=generation),
                state_machine.REDISPATCH,
                times=Times(deadline_in_s=20),
                due_in_s=2,
                provided=Provided(admission=admission),
                wake=celery_messages.dispatch(made.dispatch_id, made.room_name),
            )
        )
        loop.append(again)
    began = time.monotonic()

    run_steps(raw, loop)

    most = 1 + AT_ONCE + (time.monotonic() - began) * 1000 / PACE_MS
    assert read(store, "dsp_acme_1").generation == 20 * AT_ONCE + 1
    assert raw.llen("dispatch") <= most + 1  # and the message that it was made with
    assert raw.llen("verify") <= most


async def test_an_operators_hand_is_bound_by_the_clients_limits_too(
    services_for: OpenServices,
    request_dispatch: Request,
    store: Ledger,
    raw: redis.Redis,
) -> None:
    services = await services_for(USHER_MAX_SESSIONS="1")
    store.run(endings.cancel(request_dispatch("dsp_1"), retention_s=60))
    request_dispatch("dsp_2", room_name="room-2")

    with pytest.raises(RedispatchRefused, match="at most 1 sessions at once; try again in 5 s"):
        await redispatch(services, "dsp_1")

    store.run(endings.cancel(read(store, "dsp_2"), retention_s=60))
    await redispatch(services, "dsp_1")
    assert woken(raw).count("dsp_1") == 1


def test_a_record_keeps_its_last_attempts_however_often_it_is_sent_again(
    store: Ledger, raw: redis.Redis
) -> None:
    ask(store, "acme", 1, backlog=0)
    times = 3 * KEPT_ATTEMPTS
    for number in range(1, times + 1):
        dispatch = read(store, "dsp_acme_1")
        created = {"livekit_dispatch_id": f"AD_{number}", "tries": "2", "errors": "[]"}
        store.run(
            dispatches.advance(Advance(dispatch, state_machine.DISPATCH_STARTED, due_in_s=12))
        )
        store.run(
            dispatches.advance(Advance(dispatch, state_machine.DISPATCH_CREATED, attempt=created))
        )
        joins = dispatches.advance(
            Advance(
                dispatch,
                state_machine.JOINED,
                count_once=f"joined:AJ_{number}",
                times=Times(lease_s=6),
            )
        )
        store.run(joins)
        store.run(endings.cancel(dispatch, retention_s=60))
        store.run(
            dispatches.advance(
                Advance(
                    dispatch, state_machine.REDISPATCH, times=Times(deadline_in_s=20), due_in_s=2
                )
            )
        )

    kept = read(store, "dsp_acme_1")
    assert kept.generation == times + 1
    assert [each.generation for each in kept.attempts] == [
        *range(times + 1 - KEPT_ATTEMPTS + 1, times + 1)
    ]
    assert kept.attempts_dropped + len(kept.attempts) == times
    assert kept.attempts[-1].livekit_dispatch_id == f"AD_{times}"
    assert raw.hlen("usher:dispatch:dsp_acme_1") < 200
    counted = counters(raw, "usher:metrics:dispatch:acme")
    assert counted["attempts"] == 2 * times
    assert counted["redispatches"] == times


def test_a_record_of_the_release_before_is_cut_down_when_it_is_sent_again(
    store: Ledger, raw: redis.Redis
) -> None:
    ask(store, "acme", 1, backlog=0)
    many = {f"{number}.outcome": "cancelled" for number in range(1, 20_001)}
    raw.hset("usher:dispatch:dsp_acme_1:attempts", mapping=many)
    raw.hset("usher:dispatch:dsp_acme_1", mapping={"generation": 20_000, "state": "cancelled"})

    store.run(
        dispatches.advance(
            Advance(
                read(store, "dsp_acme_1"),
                state_machine.REDISPATCH,
                times=Times(deadline_in_s=20),
                due_in_s=2,
            )
        )
    )

    kept = read(store, "dsp_acme_1")
    assert len(kept.attempts) + kept.attempts_dropped == 20_000
    assert len(kept.attempts) < KEPT_ATTEMPTS
