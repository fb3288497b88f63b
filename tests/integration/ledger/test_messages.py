"""What the ledger puts into a queue is what Celery itself would have put there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from celery.app.task import Context
from celery.worker.request import Request
from kombu import Connection

from dispatcher import publish, tasks
from dispatcher.domain.models import Dispatch, State
from dispatcher.domain.state_machine import (
    AGENT_CONNECTED,
    DISPATCH_CREATED,
    DISPATCH_STARTED,
    JOINED,
    REDISPATCH_REQUESTED,
)
from dispatcher.ledger import celery_messages, dispatches, endings, keys, leases
from dispatcher.ledger.advance import Advance, Provided, Times
from dispatcher.ledger.celery_messages import QUEUES, Template, Wake
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.step import Step
from dispatcher.worker import heartbeat
from tests.support.house import OpenServices
from tests.support.values import eventually, keyspace, new_dispatch, run_python

ROOM = 'room "1" of <room>, it\'s a back\\slash/ünicode % \n'


def join(store: Ledger, dispatch: Dispatch) -> None:
    """Its agent is in the room."""
    store.run(dispatches.advance(Advance(dispatch, DISPATCH_STARTED)))
    in_room = Advance(dispatch, JOINED, fields={"job_id": "AJ_1"}, times=Times(lease_s=60))
    assert store.run(dispatches.advance(in_room)).moved


def start_with(wake: Wake) -> Callable[[Ledger, Dispatch], object]:
    """Have LiveKit asked for it, and a worker told."""
    return lambda store, dispatch: store.run(
        dispatches.advance(Advance(dispatch, DISPATCH_STARTED, due_in_s=60, wake=wake))
    )


def cancel(store: Ledger, dispatch: Dispatch) -> None:
    """End it when LiveKit has been asked for it."""
    store.run(dispatches.advance(Advance(dispatch, DISPATCH_STARTED)))
    assert store.run(endings.cancel(dispatch, retention_s=60)).moved


def lapse(store: Ledger, dispatch: Dispatch) -> None:
    """Tell that its agent is lost."""
    join(store, dispatch)
    assert store.run(leases.lapse(dispatch, job_id="AJ_1", loss="it was killed")) == 1


def ask_again(store: Ledger, dispatch: Dispatch) -> None:
    """Ask for it again by HTTP."""
    join(store, dispatch)
    assert store.run(ask_for_redispatch(dispatch)).applied


# Each wake-up by an operation that pushes it; `create` has pushed the first.
PUSHED: dict[Callable[[str, str], Wake], Callable[[Ledger, Dispatch], object]] = {
    celery_messages.dispatch: lambda store, dispatch: None,
    celery_messages.verify: start_with(celery_messages.verify("dsp_1", ROOM)),
    celery_messages.clear: cancel,
    celery_messages.supervise: lapse,
    celery_messages.redispatch_joined: ask_again,
}
# What no two messages have in common: each has its own, or that of the process that made it.
OWN_HEADERS = ("id", "root_id", "origin")
OWN_PROPERTIES = ("correlation_id", "reply_to", "delivery_tag")


def ask_for_redispatch(dispatch: Dispatch, *, told: bool = False) -> Step[Any]:
    """What the web does for a session whose agent may be there."""
    return dispatches.advance(
        Advance(
            dispatch,
            REDISPATCH_REQUESTED,
            wake=celery_messages.redispatch_joined(dispatch.dispatch_id, dispatch.room_name),
            provided=Provided(told=told),
        )
    )


@pytest.fixture
def celery(redis_url: str) -> Iterator[Celery]:
    """An application on the session's Redis."""
    app = Celery("test", broker=redis_url, set_as_current=False)
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


def made(store: Ledger, room: str = ROOM) -> Dispatch:
    """The record of a new session."""
    store.run(dispatches.create(new_dispatch(room_name=room), due_in_s=2, detail={}))
    dispatch = store.run(dispatches.read("dsp_1"))
    assert dispatch is not None
    return dispatch


def without_own(text: str) -> dict[str, Any]:
    """A message without what is its own, after a look at that."""
    message: dict[str, Any] = json.loads(text)
    message["body"] = json.loads(message["body"])
    headers, properties = message["headers"], message["properties"]
    own = {name: headers.pop(name) for name in OWN_HEADERS}
    own |= {name: properties.pop(name) for name in OWN_PROPERTIES}
    assert own["id"] == own["root_id"] == own["correlation_id"]
    assert all(isinstance(each, str) and len(each) > 8 for each in own.values())
    assert "<" not in "".join(own.values())
    return message


@pytest.fixture(scope="module")
def celerys_own(redis_url: str, celery_templates: tuple[Template, ...]) -> dict[str, str]:
    """What `apply_async` of each task of ours puts into the task's queue."""
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        client.flushall()
        for name, queue in QUEUES.items():
            arguments = {"dispatch_id": "dsp_1", "room": ROOM}
            tasks.app.tasks[name].apply_async(kwargs=arguments, queue=queue)
        queued = [text for queue in {*QUEUES.values()} for text in client.lrange(queue, 0, -1)]
    return {json.loads(text)["headers"]["task"]: text for text in queued}


@pytest.mark.parametrize("wake", PUSHED, ids=lambda wake: wake.args[0])
def test_a_message_is_what_apply_async_puts_there_field_by_field(
    wake: Callable[[str, str], Wake], celerys_own: dict[str, str], store: Ledger, raw: redis.Redis
) -> None:
    wanted = wake("dsp_1", ROOM)
    dispatch = made(store)
    if wake is not celery_messages.dispatch:
        raw.delete("dispatch")

    PUSHED[wake](store, dispatch)

    [ours] = raw.lrange(wanted.queue, 0, -1)
    assert without_own(ours) == without_own(celerys_own[wanted.task])
    assert without_own(ours)["body"][1] == {"dispatch_id": "dsp_1", "room": ROOM}


def test_a_worker_makes_its_request_of_it(
    store: Ledger, celery: Celery, raw: redis.Redis, redis_url: str
) -> None:
    made(store)

    message = taken(redis_url, "dispatch")

    name = message.headers["task"]
    request = Request(message, app=celery, task=celery.task(name=name)(task))
    assert request.name == celery_messages.DISPATCH_TASK
    assert request.kwargs == {"dispatch_id": "dsp_1", "room": ROOM}
    assert message.delivery_tag == request.id == message.properties["correlation_id"]


def test_no_two_messages_have_the_same_id() -> None:
    assert len({celery_messages.verify("dsp_1", ROOM).task_id for _ in range(100)}) == 100


def test_where_redis_knows_no_template_the_sweeper_comes_at_once(
    store: Ledger, raw: redis.Redis
) -> None:
    """Redis has just been emptied: no worker has said yet what Celery's messages look like."""
    raw.delete(keys.MESSAGES)

    dispatch = made(store)

    assert not raw.exists("dispatch", "verify")
    assert store.run(dispatches.claim_due(limit=10, push_s=2)) == ["dsp_1"]
    verify = celery_messages.verify("dsp_1", ROOM)
    started = Advance(dispatch, DISPATCH_STARTED, due_in_s=60, wake=verify)
    assert store.run(dispatches.advance(started)).moved
    assert store.run(dispatches.claim_due(limit=10, push_s=2)) == ["dsp_1"]
    in_room = Advance(dispatch, JOINED, fields={"job_id": "AJ_1"}, times=Times(lease_s=60))
    store.run(dispatches.advance(in_room))
    store.run(leases.claim_ended(limit=10, push_s=60))  # the first look gives each its grace
    assert store.run(leases.lapse(dispatch, job_id="AJ_1", loss="it was killed")) == 1
    assert store.run(leases.claim_ended(limit=10, push_s=60)) == ["dsp_1"]
    assert not raw.exists("dispatch", "verify")


def test_what_only_its_message_tells_is_not_done_where_no_worker_can_be_told(
    store: Ledger, raw: redis.Redis
) -> None:
    dispatch = made(store)
    join(store, dispatch)
    raw.delete(keys.MESSAGES)
    before = keyspace(raw)

    assert store.run(ask_for_redispatch(dispatch, told=True)).outcome == "untold"
    assert keyspace(raw) == before
    # What is only told sooner by its message is done without.
    connected = Advance(dispatch, AGENT_CONNECTED, wake=celery_messages.verify("dsp_1", ROOM))
    assert store.run(dispatches.advance(connected)).applied


def test_a_worker_that_starts_writes_over_what_another_release_has_kept(
    store: Ledger, raw: redis.Redis, celery_templates: tuple[Template, ...]
) -> None:
    kept = raw.hgetall(keys.MESSAGES)
    raw.hset(keys.MESSAGES, celery_messages.VERIFY_TASK, "another release's")
    raw.hset(keys.MESSAGES, "a task of another release", "its message")
    raw.hdel(keys.MESSAGES, celery_messages.CLEAR_TASK)

    store.run(celery_messages.keep(celery_templates, replace=False))
    between = raw.hgetall(keys.MESSAGES)
    store.run(celery_messages.keep(celery_templates, replace=True))

    theirs = {"a task of another release": "its message"}
    assert between == kept | theirs | {celery_messages.VERIFY_TASK: "another release's"}
    assert raw.hgetall(keys.MESSAGES) == kept | theirs


async def test_a_worker_says_it_again_when_redis_has_been_emptied(
    services_for: OpenServices, raw: redis.Redis
) -> None:
    kept = raw.hgetall(keys.MESSAGES)
    beating = asyncio.create_task(heartbeat.beat(await services_for(), []))

    for _ in range(2):  # at its start, and later
        raw.delete(keys.MESSAGES)
        await eventually(lambda: raw.hgetall(keys.MESSAGES) == kept)

    beating.cancel()
    await asyncio.gather(beating, return_exceptions=True)


def test_a_dispatch_that_livekit_has_is_verified_whatever_comes_first(
    store: Ledger, raw: redis.Redis
) -> None:
    store.run(dispatches.create(new_dispatch(), due_in_s=2, detail={}))
    dispatch = store.run(dispatches.read("dsp_1"))
    assert isinstance(dispatch, Dispatch)
    store.run(dispatches.advance(Advance(dispatch, DISPATCH_STARTED, due_in_s=2)))
    created = dispatches.advance(
        Advance(
            dispatch, DISPATCH_CREATED, due_in_s=2, wake=celery_messages.verify("dsp_1", "room-1")
        )
    )
    stale = dispatches.advance(
        Advance(
            new_generation(dispatch),
            DISPATCH_CREATED,
            due_in_s=2,
            wake=celery_messages.verify("dsp_1", "x"),
        )
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
        "from dispatcher import publish\n"
        "for task, more in (('supervise', {}), ('deliver_webhook', {'event_id': 'msg_1'})):\n"
        "    task = f'dispatcher.tasks.{task}'\n"
        "    publish.wake_worker(task, 'dsp_1', 'room-1', good_till_ms=7, **more)\n",
        REDIS_URL=redis_url,
    )

    message = taken(redis_url, queue)

    name = message.headers["task"]
    request = Request(message, app=celery, task=celery.task(name=name)(task))
    assert request.expires is None
    assert Context(request.request_dict).get(publish.GOOD_TILL_MS) == 7  # as a bound task sees it


def test_beat_s_sweeps_are_good_by_no_clock_either() -> None:
    assert run_python(
        "import celeryconfig\nprint(celeryconfig.beat_schedule['sweep'].get('options'))",
        REDIS_URL="redis://127.0.0.1:1/0",
    ).split() == ["None"]
