"""Redis keys of the ledger.

No other module knows them.

| key | type | what |
| --- | --- | --- |
| `usher:dispatch:<id>` | hash | the record: state, generation, times, names |
| `usher:dispatch:<id>:attempts` | hash | `<generation>.<field>` of every attempt |
| `usher:dispatch:<id>:timeline` | list | JSON events, oldest first, at most 200 |
| `usher:due` | sorted set | dispatch id by the time (ms) at which the sweeper must look at it |
| `usher:waiting` | sorted set | dispatch ids that wait for an agent server, by time of request |
| `usher:leases` | sorted set | joined dispatch ids by the time until which their agent is alive |
| `usher:leases:looked_at` | string | when a worker last looked for ended leases (ms) |
| `usher:parked` | hash | ids of records that no worker can work with, with the reason |
| `usher:live:<client>:<agent>:<room>` | string | the live dispatch of that room |
| `usher:index:<client>` | sorted set | every dispatch id of a client by the time it was made |
| `usher:sessions:<client>` | sorted set | those that have not ended, by state (`OPEN_STATES`) |
| `usher:failed:<client>` | sorted set | a client's failed dispatches, by when they failed (ms) |
| `usher:events_wanted` | sorted set | clients whose servers want events, by the last word (ms) |
| `usher:outbox:<client>` | sorted set | event ids by the time of their next delivery |
| `usher:event:<id>` | hash | an event for a client's own server, until it is delivered |
| `usher:dead_events:<client>` | list | events that were given up, the latest first, at most 1,000 |
| `usher:webhook_seen:<client>:<id>` | string | a webhook of LiveKit's that has been received |
| `usher:rate:<client>` | string | when (ms) its bucket of requests will be full again |
| `usher:rate:<client>:publishable` | string | the same of the requests with publishable keys |
| `usher:wrong_passwords:<address>` | string | wrong operator's passwords from there, for a minute |
| `usher:pace:<client>` | string | when (ms) its last wake-up would be due at an even pace |
| `usher:clearing_pace:<client>` | string | the same for looks into its cancelled rooms |
| `usher:busy` | set | `usher:sessions:` keys of clients that may have some on their way |
| `usher:clients` | hash | which LiveKit server each client has, with an expiry |
| `usher:key_uses:<client>` | hash | key id by the time (ms) of its last use |
| `usher:idempotency:<client>:<digest>` | hash | what a request with that `Idempotency-Key` got |
| `usher:agent_servers` | hash | the last report of every agent server, with its expiry |
| `usher:inflight:<client>:<agent>` | sorted set | dispatches on their way, by when they expire |
| `usher:window:<client>:<agent>` | string | limit of dispatches on their way after drops |
| `usher:alive` | hash | parts that are at work (workers, sweeper, LiveKit), with their expiry |
| `usher:worker_settings` | hash | the clients and agents of every worker, with their expiry |
| `usher:clock` | string | the ledger's clock and Redis's (ms), as noted lately (`clock.lua`) |
| `usher:birth` | string | a mark that is written once: another mark tells of lost data |
| `usher:probed` | string | when Redis was last asked whether it takes writes (s) |
| `usher:metrics:ledger` | hash | counters of what Redis has lost, and of unexpected failures |
| `usher:metrics:dispatch:<client>` | hash | counters of the dispatcher |
| `usher:metrics:agent:<client>:<container>:<agent>` | hash | counters of the agent servers |
| `<one of these three>:minute:<n>` | hash | those of the n-th minute, for 2 hours |
| `<one of these three>:quarter:<n>` | hash | those of the n-th quarter of an hour, for 25 hours |
| `usher:metrics:agents` | sorted set | keys of agent servers' counters, by the last count (ms) |
| `usher:counted:<reporter>` | string | the last batch of counts from an agent server or a job |
| `usher:messages:1` | hash | what Celery sends for each task: `<task>`, `<task>:body` |
| `dispatch`, `verify`, `sweep`, `webhooks` | list | Celery's queues (it has other keys) |
| `usher:wake:<id>` | channel | the event's name, after every change of the record |
| `usher:capacity` | channel | an agent name, when a server for it has room and dispatches wait |
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote, unquote

_DISPATCH_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")
RECORD_PREFIX: Final = "usher:dispatch:"
LIVE_PREFIX: Final = "usher:live:"
SESSIONS_PREFIX: Final = "usher:sessions:"
WAKE_PREFIX: Final = "usher:wake:"
EVENT_PREFIX: Final = "usher:event:"
NOTIFIED: Final = "usher:events_wanted"
DUE: Final = "usher:due"
WAITING: Final = "usher:waiting"
LEASES: Final = "usher:leases"
LEASES_LOOKED_AT: Final = "usher:leases:looked_at"
PARKED: Final = "usher:parked"
AGENT_SERVERS: Final = "usher:agent_servers"
ALIVE: Final = "usher:alive"
WORKER_SETTINGS: Final = "usher:worker_settings"
BIRTH: Final = "usher:birth"
CLOCK: Final = "usher:clock"
PROBED: Final = "usher:probed"
LEDGER_METRICS: Final = "usher:metrics:ledger"
AGENT_METRICS_INDEX: Final = "usher:metrics:agents"
BUSY: Final = "usher:busy"
CLIENTS: Final = "usher:clients"
CAPACITY_CHANNEL: Final = "usher:capacity"
MESSAGES: Final = "usher:messages:1"  # its number changes with the meaning of the templates
DISPATCH_QUEUE: Final = "dispatch"
VERIFY_QUEUE: Final = "verify"
SWEEP_QUEUE: Final = "sweep"
WEBHOOK_QUEUE: Final = "webhooks"


def is_dispatch_id(text: str) -> bool:
    """Return True when it can be a dispatch id: it becomes part of a key, and keys add to ids."""
    return _DISPATCH_ID.fullmatch(text) is not None


def record(dispatch_id: str) -> str:
    """Key of one dispatch's record."""
    return f"{RECORD_PREFIX}{dispatch_id}"


def attempts(dispatch_id: str) -> str:
    """Key of one dispatch's attempts."""
    return f"{RECORD_PREFIX}{dispatch_id}:attempts"


def timeline(dispatch_id: str) -> str:
    """Key of one dispatch's timeline."""
    return f"{RECORD_PREFIX}{dispatch_id}:timeline"


def live(client_id: str, agent_name: str, room_name: str) -> str:
    """Key of the id of the dispatch that serves this room."""
    return f"{LIVE_PREFIX}{client_id}:{quote(agent_name, safe='')}:{quote(room_name, safe='')}"


def index(client_id: str) -> str:
    """Key of one client's dispatches that have a record, by the time of their creation (ms)."""
    return f"usher:index:{client_id}"


def open_sessions(client_id: str) -> str:
    """Key of one client's dispatches that have not ended."""
    return f"{SESSIONS_PREFIX}{client_id}"


def failed_sessions(client_id: str) -> str:
    """Key of one client's failed dispatches that have a record, by the time of failure."""
    return f"usher:failed:{client_id}"


def _agent(agent_name: str, deployment: str) -> str:
    names = (agent_name, deployment) if deployment else (agent_name,)
    return ":".join(quote(name, safe="") for name in names)


def inflight(client_id: str, agent_name: str, deployment: str = "") -> str:
    """Key of a client's dispatches on their way to an agent of that name and deployment."""
    return f"usher:inflight:{client_id}:{_agent(agent_name, deployment)}"


def window(client_id: str, agent_name: str, deployment: str = "") -> str:
    """Key of the number that may be on their way at once, after LiveKit has dropped some."""
    return f"usher:window:{client_id}:{_agent(agent_name, deployment)}"


def rate(client_id: str, bucket: str = "") -> str:
    """Key of a client's used requests per minute; each bucket counts by itself."""
    return f"usher:rate:{client_id}:{bucket}" if bucket else f"usher:rate:{client_id}"


def wrong_passwords(address: str) -> str:
    """Key of the number of recent wrong operator's passwords from an address."""
    return f"usher:wrong_passwords:{address}"


def pace(client_id: str) -> str:
    """Key of how far a client is ahead of an even pace."""
    return f"usher:pace:{client_id}"


def clearing_pace(client_id: str) -> str:
    """Key of how far a client that cancels is ahead of an even pace."""
    return f"usher:clearing_pace:{client_id}"


def key_uses(client_id: str) -> str:
    """Key of the times at which a client's API keys were last used."""
    return f"usher:key_uses:{client_id}"


def idempotency(client_id: str, digest: str) -> str:
    """Key of the answer to a request with an `Idempotency-Key` of that digest."""
    return f"usher:idempotency:{client_id}:{digest}"


def dispatch_metrics(client_id: str) -> str:
    """Key of the dispatcher's counters for one client."""
    return f"usher:metrics:dispatch:{client_id}"


def agent_metrics(client_id: str, container: str, agent_name: str) -> str:
    """Key of the agent servers' counters for one client, container and agent name."""
    parts = (quote(part, safe="") for part in (client_id, container, agent_name))
    return ":".join(("usher:metrics:agent", *parts))


def names_of_agent_metrics(key: str) -> tuple[str, str, str]:
    """Return client, container and agent name of the counters under `key`."""
    client_id, container, agent_name = map(unquote, key.split(":")[3:6])
    return client_id, container, agent_name


def counted(reporter: str) -> str:
    """Key of the last counted batch of this agent server or job."""
    return f"usher:counted:{reporter}"


def wake_channel(dispatch_id: str) -> str:
    """Pub/sub channel that gets the event's name after every change of the record."""
    return f"{WAKE_PREFIX}{dispatch_id}"


def outbox(client_id: str) -> str:
    """Key of the events for one client's own server, by the time of their next delivery."""
    return f"usher:outbox:{client_id}"


def event(event_id: str) -> str:
    """Key of one event that is to be delivered."""
    return f"{EVENT_PREFIX}{event_id}"


def dead_events(client_id: str) -> str:
    """Key of one client's events that were given up."""
    return f"usher:dead_events:{client_id}"


def webhook_seen(client_id: str, event_id: str) -> str:
    """Key that marks this webhook of one client's LiveKit as received."""
    return f"usher:webhook_seen:{client_id}:{event_id}"
