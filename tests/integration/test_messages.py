"""Is what the ledger puts into a queue what Celery itself would have put there?

kombu takes it out, and Celery's worker makes its request of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from celery.app.task import Context
from celery.worker.request import Request
from kombu import Connection

from dispatcher import ledger, messages, waking
from dispatcher.messages import Wake
from dispatcher.models import Dispatch, State
from dispatcher.state_machine import DISPATCH_CREATED, DISPATCH_STARTED
from dispatcher.store import Ledger
from tests.support import keyspace, new_dispatch, run_python

ROOM = 'room "1", with ünicode'
WAKES = [
    messages.dispatch("dsp_1", ROOM),
    messages.verify("dsp_1", ROOM),
    messages.clear("dsp_1", ROOM),
    messages.redispatch_joined("dsp_1", ROOM),
]
TASKS = [
    messages.DISPATCH_TASK,
    messages.VERIFY_TASK,
    messages.CLEAR_TASK,
    messages.REDISPATCH_JOINED_TASK,
]


@pytest.fixture
def celery(redis_url: str) -> Iterator[Celery]:
    """An application with those tasks, on the session's Redis."""
    app = Celery("test", broker=redis_url, set_as_current=False)
    in_verify = {"queue": "verify"}
    app.conf.task_routes = dict.fromkeys((messages.VERIFY_TASK, messages.CLEAR_TASK), in_verify)
    app.conf.task_default_queue = "dispatch"
    for name in TASKS:
        app.task(name=name, ignore_result=True)(task)
    yield app
    app.close()


def task(dispatch_id: str, room: str) -> None:
    """What a worker would run."""


def taken(redis_url: str, queue: str) -> Any:
    """The next message of that queue, as kombu gives it to a worker."""
    with Connection(redis_url) as connection, connection.SimpleQueue(queue) as waiting:
        message = waiting.get(timeout=5)
        message.ack()
        return message


def request(message: Any, app: Celery) -> dict[str, Any]:
    """What a worker makes of it, without the ids and the sender, which are never the same."""
    made = Request(message, app=app, task=app.tasks[message.headers["task"]])
    seen = {
        name: getattr(made, name)
        for name in ("name", "args", "kwargs", "eta", "expires", "argsrepr")
    }
    return seen | {
        "kwargsrepr": made.kwargsrepr,
        "time_limits": [*made.time_limits],
        "ignores_result": made.ignore_result,
        "root_is_itself": made.root_id == made.id,
        "parent": made.parent_id,
        "retries": made.request_dict.get("retries", 0),
        "queue": made.delivery_info["routing_key"],
        "payload": message.payload[:2],
        "encoded": (message.content_type, message.content_encoding),
    }


@pytest.mark.parametrize(("wake", "name"), [*zip(WAKES, TASKS, strict=True)], ids=TASKS)
def test_a_worker_makes_of_it_what_it_makes_of_celerys_own(
    wake: Wake, name: str, celery: Celery, raw: redis.Redis, redis_url: str
) -> None:
    raw.lpush(wake.queue, wake.message)
    ours = taken(redis_url, wake.queue)
    celery.send_task(name, kwargs={"dispatch_id": "dsp_1", "room": ROOM}, ignore_result=True)
    theirs = taken(redis_url, wake.queue)

    assert request(ours, celery) == request(theirs, celery)
    assert ours.headers["id"] == ours.delivery_tag
    assert len(wake.message) < 700


def test_no_two_messages_have_the_same_id() -> None:
    ids = {json.loads(messages.verify("dsp_1", ROOM).message)["headers"]["id"] for _ in range(100)}
    assert len(ids) == 100


def test_a_dispatch_that_livekit_has_is_verified_whatever_comes_first(
    store: Ledger, raw: redis.Redis
) -> None:
    store.run(ledger.create(new_dispatch(), due_in_s=2, detail={}))
    dispatch = store.run(ledger.read("dsp_1"))
    assert isinstance(dispatch, Dispatch)
    store.run(ledger.advance(dispatch, DISPATCH_STARTED, due_in_s=2))
    created = ledger.advance(
        dispatch, DISPATCH_CREATED, due_in_s=2, wake=messages.verify("dsp_1", "room-1")
    )
    stale = ledger.advance(
        new_generation(dispatch), DISPATCH_CREATED, due_in_s=2, wake=messages.verify("dsp_1", "x")
    )

    assert store.run(created).state == State.DISPATCHED
    assert store.run(stale).outcome == "stale"

    [queued] = raw.lrange("verify", 0, -1)
    assert json.loads(json.loads(queued)["body"])[1] == {"dispatch_id": "dsp_1", "room": "room-1"}
    assert len(keyspace(raw)["dispatch"]) == 1


def new_generation(dispatch: Dispatch) -> Dispatch:
    """The same record, as somebody else has it."""
    return Dispatch(**{**vars(dispatch), "generation": dispatch.generation + 1})


@pytest.mark.parametrize("queue", ["sweep", "webhooks"])
def test_no_message_is_good_by_the_clock_of_a_host(
    queue: str, celery: Celery, raw: redis.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose clock is ahead must not throw away what the sweeper has sent."""
    run_python(
        "from dispatcher import waking\n"
        "waking.wake_supervision('dsp_1', 'room-1', good_till_ms=7)\n"
        "waking.wake_delivery('msg_1', 'dsp_1', 'room-1', good_till_ms=7)\n",
        REDIS_URL=redis_url,
    )

    message = taken(redis_url, queue)

    name = message.headers["task"]
    made = Request(message, app=celery, task=celery.task(name=name)(task))
    assert made.expires is None
    assert Context(made.request_dict).get(waking.GOOD_TILL_MS) == 7  # as a bound task sees it


def test_beat_s_sweeps_are_good_by_no_clock_either() -> None:
    assert run_python(
        "import celeryconfig\nprint(celeryconfig.beat_schedule['sweep'].get('options'))",
        REDIS_URL="redis://127.0.0.1:1/0",
    ).split() == ["None"]
