"""Which Redis keys are there?

The only module that knows them.

| key | type | what |
| --- | --- | --- |
| `usher:dispatch:<id>` | hash | the record: state, generation, times, names |
| `usher:dispatch:<id>:attempts` | hash | `<generation>.<field>` of every attempt |
| `usher:dispatch:<id>:timeline` | list | JSON events, oldest first, at most 200 |
| `usher:due` | sorted set | dispatch id by the time (ms) at which somebody must look at it |
| `usher:waiting` | sorted set | dispatch ids that wait for an agent server, by time of request |
| `usher:leases` | sorted set | joined dispatch ids by the time their agent counts as alive till |
| `usher:leases:looked_at` | string | when somebody last looked for ended leases (ms) |
| `usher:parked` | hash | ids of records that nobody can work with, with the reason |
| `usher:live:<client>:<agent>:<room>` | string | the live dispatch of that room |
| `usher:index:<client>` | sorted set | every dispatch id of a client by the time it was made |
| `usher:open:<client>` | set | those of them that have not ended |
| `usher:idempotency:<client>:<digest>` | hash | what a request with that `Idempotency-Key` got |
| `usher:agent_servers` | hash | the last report of every agent server, with its expiry |
| `usher:alive` | hash | parts that are at work (workers, sweeper, LiveKit), with their expiry |
| `usher:birth` | string | a mark that is written once: another one tells of lost data |
| `usher:metrics:ledger` | hash | counters of what Redis has lost |
| `usher:metrics:dispatch:<client>` | hash | counters of the dispatcher |
| `usher:metrics:agent:<client>:<container>:<agent>` | hash | counters of the agent servers |
| `dispatch` | list | Celery's queue (its other keys are Celery's own affair) |
| `usher:wake:<id>` | channel | the event's name, after every change of the record |
| `usher:capacity` | channel | an agent name, when a server for it has room and dispatches wait |
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

RECORD_PREFIX: Final = "usher:dispatch:"
OPEN_PREFIX: Final = "usher:open:"
DUE: Final = "usher:due"
WAITING: Final = "usher:waiting"
LEASES: Final = "usher:leases"
LEASES_LOOKED_AT: Final = "usher:leases:looked_at"
PARKED: Final = "usher:parked"
AGENT_SERVERS: Final = "usher:agent_servers"
ALIVE: Final = "usher:alive"
BIRTH: Final = "usher:birth"
LEDGER_METRICS: Final = "usher:metrics:ledger"
CAPACITY_CHANNEL: Final = "usher:capacity"
DISPATCH_QUEUE: Final = "dispatch"


def record(dispatch_id: str) -> str:
    """The record of one dispatch."""
    return f"{RECORD_PREFIX}{dispatch_id}"


def attempts(dispatch_id: str) -> str:
    """The attempts of one dispatch."""
    return f"{RECORD_PREFIX}{dispatch_id}:attempts"


def timeline(dispatch_id: str) -> str:
    """The timeline of one dispatch."""
    return f"{RECORD_PREFIX}{dispatch_id}:timeline"


def live(client_id: str, agent_name: str, room_name: str) -> str:
    """Which dispatch serves this room."""
    return f"usher:live:{client_id}:{quote(agent_name, safe='')}:{quote(room_name, safe='')}"


def index(client_id: str) -> str:
    """Every dispatch of one client that Redis still has, by the time it was made (ms)."""
    return f"usher:index:{client_id}"


def open_sessions(client_id: str) -> str:
    """The dispatches of one client that have not ended."""
    return f"{OPEN_PREFIX}{client_id}"


def idempotency(client_id: str, digest: str) -> str:
    """What a request with an `Idempotency-Key` of that digest was answered with."""
    return f"usher:idempotency:{client_id}:{digest}"


def dispatch_metrics(client_id: str) -> str:
    """Hash of the dispatcher's counters for one client."""
    return f"usher:metrics:dispatch:{client_id}"


def agent_metrics(client_id: str, container: str, agent_name: str) -> str:
    """Hash of the agent servers' counters for one client, container and agent name."""
    parts = (quote(part, safe="") for part in (client_id, container, agent_name))
    return ":".join(("usher:metrics:agent", *parts))


def wake_channel(dispatch_id: str) -> str:
    """Pub/sub channel that gets the event's name after every change of the record."""
    return f"usher:wake:{dispatch_id}"
