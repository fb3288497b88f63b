"""Redis keys of the ledger, with their types. No other module knows them.

Times in them are ms since the epoch, by the ledger's clock (`lua/clock.lua`).
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
JOBS_PREFIX: Final = "usher:jobs:"

# Sorted sets
DUE: Final = "usher:due"  # dispatch ids by the time at which the sweeper must look at them
WAITING: Final = "usher:waiting"  # those that wait for an agent server, by time of request
LEASES: Final = "usher:leases"  # joined ones by the time until which their agent is alive
NOTIFIED: Final = "usher:events_wanted"  # clients that want events, by the last word from a worker
AGENT_METRICS_INDEX: Final = "usher:metrics:agents"  # `agent_metrics` keys by the last count

# Hashes; an entry of the first four begins with its expiry
AGENT_SERVERS: Final = "usher:agent_servers"  # the last report of every agent server
ALIVE: Final = "usher:alive"  # parts that are at work (workers, sweeper, LiveKit)
WORKER_SETTINGS: Final = "usher:worker_settings"  # the clients and agents of every worker
CLIENTS: Final = "usher:clients"  # which LiveKit server each client has
PARKED: Final = "usher:parked"  # ids of records that no worker can work with, with the reason
LEDGER_METRICS: Final = "usher:metrics:ledger"  # counters of lost data and of unexpected failures
# What Celery sends for each task: `<task>`, `<task>:body`. The number changes with their meaning.
MESSAGES: Final = "usher:messages:1"

# Strings
LEASES_LOOKED_AT: Final = "usher:leases:looked_at"  # when a worker last looked for ended leases
CLOCK: Final = "usher:clock"  # the ledger's clock and Redis's, as noted lately
BIRTH: Final = "usher:birth"  # a mark that is written once: another mark tells of lost data
PROBED: Final = "usher:probed"  # written to learn whether Redis takes writes

BUSY: Final = "usher:busy"  # set: `open_sessions` keys of clients that may have some on their way

# Channel: an agent name, when a server for it has room and dispatches wait
CAPACITY_CHANNEL: Final = "usher:capacity"

# Lists: Celery's queues (it has other keys)
DISPATCH_QUEUE: Final = "dispatch"
VERIFY_QUEUE: Final = "verify"
SWEEP_QUEUE: Final = "sweep"
WEBHOOK_QUEUE: Final = "webhooks"


def is_dispatch_id(text: str) -> bool:
    """Return True when it can be a dispatch id: it becomes part of a key, and keys add to ids."""
    return _DISPATCH_ID.fullmatch(text) is not None


def record(dispatch_id: str) -> str:
    """Hash: one dispatch's state, generation, times and names."""
    return f"{RECORD_PREFIX}{dispatch_id}"


def attempts(dispatch_id: str) -> str:
    """Hash: `<generation>.<field>` of every attempt of one dispatch."""
    return f"{RECORD_PREFIX}{dispatch_id}:attempts"


def timeline(dispatch_id: str) -> str:
    """List: one dispatch's events as JSON, oldest first, at most 200."""
    return f"{RECORD_PREFIX}{dispatch_id}:timeline"


def wake_channel(dispatch_id: str) -> str:
    """Channel: the event's name, after every change of the record."""
    return f"{WAKE_PREFIX}{dispatch_id}"


def live(client_id: str, agent_name: str, room_name: str) -> str:
    """String: the id of the dispatch that serves this room."""
    return f"{LIVE_PREFIX}{client_id}:{quote(agent_name, safe='')}:{quote(room_name, safe='')}"


def index(client_id: str) -> str:
    """Sorted set: one client's dispatches that have a record, by when they were made."""
    return f"usher:index:{client_id}"


def open_sessions(client_id: str) -> str:
    """Sorted set: one client's dispatches that have not ended, by state (`OPEN_STATES`)."""
    return f"{SESSIONS_PREFIX}{client_id}"


def failed_sessions(client_id: str) -> str:
    """Sorted set: one client's failed dispatches that have a record, by when they failed."""
    return f"usher:failed:{client_id}"


def _agent(agent_name: str, deployment: str) -> str:
    names = (agent_name, deployment) if deployment else (agent_name,)
    return ":".join(quote(name, safe="") for name in names)


def inflight(client_id: str, agent_name: str, deployment: str = "") -> str:
    """Sorted set: a client's dispatches on their way to such an agent, by when they expire."""
    return f"usher:inflight:{client_id}:{_agent(agent_name, deployment)}"


def window(client_id: str, agent_name: str, deployment: str = "") -> str:
    """String: how many may be on their way at once, after LiveKit has dropped some."""
    return f"usher:window:{client_id}:{_agent(agent_name, deployment)}"


def rate(client_id: str, bucket: str = "") -> str:
    """String: when a bucket of a client's requests will be full again."""
    return f"usher:rate:{client_id}:{bucket}" if bucket else f"usher:rate:{client_id}"


def wrong_passwords(address: str) -> str:
    """String: the number of wrong operator's passwords from an address, for a minute."""
    return f"usher:wrong_passwords:{address}"


def pace(client_id: str) -> str:
    """String: when a client's last wake-up would be due at an even pace."""
    return f"usher:pace:{client_id}"


def clearing_pace(client_id: str) -> str:
    """String: the same for looks into a client's cancelled rooms."""
    return f"usher:clearing_pace:{client_id}"


def key_uses(client_id: str) -> str:
    """Hash: id of a client's API key by the time of its last use."""
    return f"usher:key_uses:{client_id}"


def idempotency(client_id: str, digest: str) -> str:
    """Hash: the answer to a request with an `Idempotency-Key` of that digest."""
    return f"usher:idempotency:{client_id}:{digest}"


# Counters are also kept by time: under `<key>:minute:<n>` those of the n-th minute, for 2 hours,
# under `<key>:quarter:<n>` those of the n-th quarter of an hour, for 25 hours. Those of the present
# minute stand under `<key>:open:<n>` alone, with n in `<key>:open` (`lua/counting.lua`).


def dispatch_metrics(client_id: str) -> str:
    """Hash: the dispatcher's counters for one client."""
    return f"usher:metrics:dispatch:{client_id}"


def agent_metrics(client_id: str, container: str, agent_name: str) -> str:
    """Hash: the agent servers' counters for one client, container and agent name."""
    parts = (quote(part, safe="") for part in (client_id, container, agent_name))
    return ":".join(("usher:metrics:agent", *parts))


def names_of_agent_metrics(key: str) -> tuple[str, str, str]:
    """Return client, container and agent name of the counters under `key`."""
    client_id, container, agent_name = map(unquote, key.split(":")[3:6])
    return client_id, container, agent_name


def counted(reporter: str) -> str:
    """String: the number of the last batch of counts from this agent server or job."""
    return f"usher:counted:{reporter}"


def jobs(agent_server_id: str) -> str:
    """List: jobs that Usher itself has given to this agent server, each beginning with its expiry.

    Also the channel that tells it so.
    """
    return f"{JOBS_PREFIX}{agent_server_id}"


def outbox(client_id: str) -> str:
    """Sorted set: events for one client's own server, by the time of their next delivery."""
    return f"usher:outbox:{client_id}"


def event(event_id: str) -> str:
    """Hash: an event for a client's own server, until it is delivered."""
    return f"{EVENT_PREFIX}{event_id}"


def dead_events(client_id: str) -> str:
    """List: one client's events that were given up, the latest first, at most 1,000."""
    return f"usher:dead_events:{client_id}"


def webhook_seen(client_id: str, event_id: str) -> str:
    """String: this webhook of one client's LiveKit has been received."""
    return f"usher:webhook_seen:{client_id}:{event_id}"
