"""Handmade values for tests, and a dump of everything in Redis."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import redis
from livekit import api

from devstack import PROJECT_ROOT
from dispatcher.cli.showing import look
from dispatcher.domain.metrics import BOUNDS
from dispatcher.domain.models import AgentServerReport, Attempt, Dispatch, NewDispatch, State
from dispatcher.domain.rooms import AgentParticipant
from dispatcher.domain.timing import Timings
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.keys import MESSAGES
from dispatcher.settings import CommonSettings

T = TypeVar("T")

AGENT_NAME = "session-agent-rag"
WAIT_S = 30.0
# The defaults of the settings.
TIMINGS = Timings(
    verify_timeout_s=5.0,
    verify_poll_s=0.5,
    offer_timeout_s=2.0,
    wake_grace_s=2.0,
    retention_s=86_400,
)
UNREACHABLE = {"failure_reason": "livekit_unreachable", "failure_message": "it was"}


def new_dispatch(dispatch_id: str = "dsp_1", **changes: Any) -> NewDispatch:
    """Make the new dispatch that the web asks the ledger to write."""
    values: dict[str, Any] = {
        "client_id": "acme",
        "room_name": "room-1",
        "agent_name": AGENT_NAME,
        "container": "",
        "agent_metadata": "",
        "deadline_ms": 20_000,
    }
    return NewDispatch(dispatch_id=dispatch_id, **(values | changes))


def a_dispatch(*, remaining_s: float = 15.0, reason: str = "", **changes: Any) -> Dispatch:
    """Make a record as read, `remaining_s` before its deadline; `reason` is its attempt's."""
    values: dict[str, Any] = {
        "dispatch_id": "dsp_1",
        "client_id": "acme",
        "room_name": "room-1",
        "agent_name": AGENT_NAME,
        "generation": 1,
        "state": State.DISPATCHED,
        "created_at_ms": 1_000_000,
        "requested_at_ms": 1_000_000,
        "deadline_at_ms": 1_020_000,
        "read_at_ms": 1_020_000 - int(remaining_s * 1000),
    }
    values |= changes
    if reason:
        values["attempts"] = (Attempt(generation=values["generation"], reason=reason),)
    return Dispatch(**values)


def a_server(agent_server_id: str = "server-1", **changes: Any) -> AgentServerReport:
    """Make the report of an agent server that serves every client and has free slots."""
    values: dict[str, Any] = {
        "agent_name": AGENT_NAME,
        "container": "box-1",
        "client_id": "",
        "slots": 4,
        "used_slots": 1,
        "load": 0.25,
        "draining": False,
        "registered": True,
    }
    return AgentServerReport(agent_server_id=agent_server_id, **(values | changes))


def an_agent(**changes: Any) -> AgentParticipant:
    """Make an agent participant, of generation 1 of `dsp_1`."""
    values: dict[str, Any] = {
        "identity": "agent-AJ_1",
        "agent_name": AGENT_NAME,
        "joined_at_ms": 1_000_400,
        "dispatch_id": "dsp_1",
        "generation": 1,
    }
    return AgentParticipant(**(values | changes))


_COUNTING_KEYS = ("usher:metrics:", "usher:counted:")
_COUNTING_FIELDS = re.compile(
    r"(queued|dispatching|dispatched|offered|accepted)_at_ms|tries|measured|first_generation|"
    r"counted:.*"
)
_BUCKET = re.compile(r":(minute|quarter):\d+$")


def keyspace(client: redis.Redis, *, counting: bool = False) -> dict[str, Any]:
    """Return every key with its whole value, in plain Python; `(value, "expires")` if it expires.

    The clock and Celery's templates are left out, and without `counting` also the counters (see
    `counters`) and the fields of records for them.
    """
    look: dict[str, Callable[[str], Any]] = {
        "string": client.get,
        "hash": client.hgetall,
        "set": lambda key: sorted(client.smembers(key)),
        "list": lambda key: client.lrange(key, 0, -1),
        "zset": lambda key: {
            name: int(score) for name, score in client.zrange(key, 0, -1, withscores=True)
        },
    }
    found: dict[str, Any] = {}
    for key in sorted(client.scan_iter()):
        if key in ("usher:clock", MESSAGES) or (key.startswith(_COUNTING_KEYS) and not counting):
            continue
        value = look[client.type(key)](key)
        if isinstance(value, dict) and not counting:
            value = {k: v for k, v in value.items() if not _COUNTING_FIELDS.fullmatch(k)}
        found[key] = value if client.ttl(key) == -1 else (value, "expires")
    return found


def counters(client: redis.Redis, key: str) -> dict[str, int]:
    """Return the totals under `key` with those of the present minute.

    Its minutes and quarters of an hour must add up to the former.
    """
    totals = {name: int(value) for name, value in client.hgetall(key).items()}
    open_minutes = list(client.scan_iter(f"{key}:open:*"))
    assert [f"{key}:open:{minute}" for minute in filter(None, [client.get(f"{key}:open")])] == (
        open_minutes
    )
    sums: dict[str, Counter[str]] = {"minute": Counter(), "quarter": Counter()}
    for bucket in client.scan_iter(f"{key}:*"):
        if found := _BUCKET.search(bucket):
            assert client.ttl(bucket) > 0
            sums[found[1]].update({k: int(v) for k, v in client.hgetall(bucket).items()})
    assert sums == {"minute": totals, "quarter": totals}
    present = Counter(totals)
    for minute in open_minutes:
        present.update({name: int(value) for name, value in client.hgetall(minute).items()})
    return dict(present)


def counts(client: redis.Redis, key: str) -> dict[str, int]:
    """Return the totals under `key` that are no histograms."""
    found = counters(client, key)
    return {name: value for name, value in found.items() if name.partition(":")[0] not in BOUNDS}


async def eventually(look: Callable[[], T], *, within_s: float = WAIT_S) -> T:
    """Return the first true result of `look`, called again and again for a bounded time."""
    until = time.monotonic() + within_s
    while not (answer := look()):
        if time.monotonic() > until:
            raise AssertionError(f"still {answer!r} after {within_s} s")
        await asyncio.sleep(0.01)
    return answer


def told_of(redis_url: str, dispatch_id: str) -> str:
    """Return all that `dispatch show` and the dashboard say of a dispatch, in one string."""
    settings = CommonSettings.model_validate({"REDIS_URL": redis_url})
    store = Ledger(settings)
    try:
        _, told, _ = look(store, dispatch_id, TIMINGS)
    finally:
        store.close()
    return " ".join((told.headline, told.cause, told.advice, *told.evidence))


def join_token(api_key: str, api_secret: str, room: str) -> str:
    """A token with which a participant, "agent", joins `room`."""
    grants = api.VideoGrants(room_join=True, room=room)
    return api.AccessToken(api_key, api_secret).with_identity("agent").with_grants(grants).to_jwt()


def run_python(program: str, *arguments: str, **environ: str) -> str:
    """Run `program` in a process of its own; return its output, raise when it fails or hangs."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, **environ},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    ).stdout
