"""What do the things that `doctor` has seen mean, and what is to be done? Pure functions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from dispatcher.clients import Client
from dispatcher.figures import Health
from dispatcher.metrics import Figures
from dispatcher.models import AgentServerReport
from dispatcher.store import ServerFacts
from dispatcher.troubles import seconds


class Status(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor's; `advice` is empty where nothing is to be done."""

    name: str
    status: Status
    message: str
    advice: str = ""


SLOW_REDIS_MS: Final = 20.0
SLOW_LIVEKIT_MS: Final = 500.0
# LiveKit's clock is seen to the second.
SKEW_S: Final = 1.0
LIVEKIT_SKEW_S: Final = 3.0
LONG_QUEUE: Final = 100
TOO_LONG_QUEUE: Final = 1000
LATE_MS: Final = 5_000
TOO_LATE_MS: Final = 15_000
LOW_SUCCESS: Final = 0.95
# Fewer sessions than these say nothing about the rate.
FEW: Final = 5
_NEARLY_FULL: Final = 0.8
_NEEDED: Final = ("dispatch", "verify", "sweep")


def ok(name: str, message: str) -> Finding:
    """Nothing is to be done."""
    return Finding(name=name, status=Status.OK, message=message)


def warn(name: str, message: str, advice: str) -> Finding:
    """It works, and may not for long."""
    return Finding(name=name, status=Status.WARN, message=message, advice=advice)


def fail(name: str, message: str, advice: str) -> Finding:
    """Sessions suffer."""
    return Finding(name=name, status=Status.FAIL, message=message, advice=advice)


def skipped(name: str, message: str) -> Finding:
    """It could not be asked."""
    return Finding(name=name, status=Status.SKIPPED, message=message)


def address(url: str) -> str:
    """A URL without what may be secret in it."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}"


def of_redis(where: str, facts: ServerFacts, latency_ms: float) -> Iterator[Finding]:
    """Whether it is quick, and keeps what it is given."""
    message = f"{where} answers in {latency_ms:.1f} ms (Redis {facts.version})"
    if latency_ms > SLOW_REDIS_MS:
        yield warn("redis", message, "Move it nearer, or look at its load: every step asks it.")
    else:
        yield ok("redis", message)
    if facts.replica:
        yield fail("redis role", "it is a replica: writes fail", "Point REDIS_URL at the primary.")
    how = facts.appendfsync or "fsync setting unknown"
    if facts.append_only and facts.appendfsync != "no":
        yield ok("redis durability", f"append-only file, {how}")
    else:
        yield warn(
            "redis durability",
            f"append-only file, {how}" if facts.append_only else "no append-only file",
            "A crash of Redis loses sessions: set appendonly yes and appendfsync everysec (or "
            "always); docs/redis.md says what each may lose.",
        )
    yield from _memory(facts)


def _memory(facts: ServerFacts) -> Iterator[Finding]:
    if facts.evicted or (facts.max_bytes and facts.eviction not in ("", "noeviction")):
        yield fail(
            "redis memory",
            f"it may throw records away (maxmemory-policy {facts.eviction}, "
            f"{facts.evicted} keys evicted)",
            "Set maxmemory-policy noeviction, and give it more memory.",
        )
    elif facts.max_bytes and facts.used_bytes > _NEARLY_FULL * facts.max_bytes:
        used = facts.used_bytes / facts.max_bytes
        yield warn("redis memory", f"{used:.0%} of maxmemory is used", "Give it more memory.")
    else:
        yield ok("redis memory", f"{facts.used_bytes / 1e6:.0f} MB used, {facts.eviction}")


def of_clock(name: str, skew_s: float, *, allowed_s: float) -> Finding:
    """Whether a clock goes as this machine's does; `skew_s` is how far ahead it is."""
    name = f"clock {name}"
    if abs(skew_s) <= allowed_s:
        return ok(name, f"{abs(skew_s):.1f} s from this machine's")
    return warn(
        name,
        f"{abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's clock",
        "Synchronise the clocks (NTP): times to join come out wrong, and with minutes tokens fail.",
    )


def of_livekit(client: Client, latency_ms: float) -> Finding:
    """A LiveKit server that has answered, with this client's key."""
    message = f"{address(client.livekit.url)} takes the key, answers in {latency_ms:.0f} ms"
    if latency_ms > SLOW_LIVEKIT_MS:
        return warn(f"livekit {client.client_id}", message, "Look at its load and the network.")
    return ok(f"livekit {client.client_id}", message)


def of_livekit_refusal(client: Client, error: str) -> Finding:
    """It answers and does not want us."""
    return fail(
        f"livekit {client.client_id}",
        f"{address(client.livekit.url)}: {error}",
        "Correct this client's LIVEKIT_URL, key or secret: they do not belong together.",
    )


def of_livekit_silence(client: Client, error: str) -> Finding:
    """It does not answer."""
    return fail(
        f"livekit {client.client_id}",
        f"{address(client.livekit.url)}: {error}",
        "Start that server, or correct LIVEKIT_URL or the network between: its sessions wait.",
    )


def of_agents(
    clients: Sequence[Client], servers: Iterable[AgentServerReport], unfenced: frozenset[str]
) -> Iterator[Finding]:
    """Whether every agent that a client may use has a server with room."""
    servers = list(servers)
    for client in clients:
        for agent_name in client.agent_names:
            name = f"agents {client.client_id}/{agent_name}"
            if agent_name in unfenced:
                yield ok(name, "its servers report nothing to us (USHER_UNFENCED_AGENTS)")
                continue
            yield _of_agent(name, client, agent_name, servers)


def _of_agent(
    name: str, client: Client, agent_name: str, servers: Sequence[AgentServerReport]
) -> Finding:
    serving = [
        server
        for server in servers
        if server.serves(
            client_id=client.client_id, agent_name=agent_name, container=client.container
        )
    ]
    online = [server for server in serving if server.online]
    if not online:
        default = agent_name == client.default_agent_name
        where = f" in container {client.container}" if client.container else ""
        not_online = f"; {len(serving)} drain or are not registered at LiveKit" if serving else ""
        return (fail if default else warn)(
            name,
            f"no agent server online{where}{not_online}",
            "Start one (python -m worker_agent) or read its log; sessions for it wait and fail.",
        )
    free = sum(server.free_slots for server in online)
    slots = sum(server.slots for server in online)
    message = f"{len(online)} agent server(s) online, {free} of {slots} slots free"
    if not free:
        return warn(
            name, message, "Add agent servers, or raise USHER_AGENT_SLOTS: new sessions wait."
        )
    return ok(name, message)


def of_health(health: Health, *, webhooks: bool) -> Iterator[Finding]:
    """Workers, sweeper, queues, and what waits."""
    for queue in (*_NEEDED, *(["webhooks"] if webhooks else [])):
        if queue in health.workers:
            yield ok(f"worker {queue}", "alive")
        else:
            yield fail(
                f"worker {queue}",
                "no worker of this queue has reported itself in the last seconds",
                "Start it (Procfile), or read its log: it needs this REDIS_URL.",
            )
    if health.sweeper_alive:
        yield ok("sweeper", "alive")
    else:
        silent = health.sweeper_silent_ms
        since = "never swept" if silent is None else f"silent for {seconds(silent)}"
        yield fail("sweeper", since, "Start beat (Procfile): what gets lost is not found.")
    yield from _queues(health)
    yield from _records(health)


def _queues(health: Health) -> Iterator[Finding]:
    for queue, length in health.queues.items():
        name, message = f"queue {queue}", f"{length} message(s)"
        advice = "Its workers are too few, busy or hang: read their log, start more of them."
        if length >= TOO_LONG_QUEUE:
            yield fail(name, message, advice)
        elif length >= LONG_QUEUE:
            yield warn(name, message, advice)
        else:
            yield ok(name, message)
    if health.overdue and health.oldest_overdue_ms >= LATE_MS:
        yield (fail if health.oldest_overdue_ms >= TOO_LATE_MS else warn)(
            "overdue",
            f"{health.overdue} record(s) nobody has looked at, the oldest for "
            f"{seconds(health.oldest_overdue_ms)}",
            "Sweeper or dispatch workers are away or too slow.",
        )
    else:
        yield ok("overdue", f"{health.overdue} record(s) due now")
    if health.waiting:
        yield warn(
            "waiting",
            f"{health.waiting} session(s) wait for an agent server, the oldest for "
            f"{seconds(health.oldest_waiting_ms)}",
            "`dispatch list --state waiting` and `show` say why; mostly agent servers are missing.",
        )
    else:
        yield ok("waiting", "no session waits for an agent server")


def _records(health: Health) -> Iterator[Finding]:
    if health.parked:
        yield warn(
            "parked",
            f"{health.parked} record(s) cannot be read",
            "`dispatch list` names them and `show` says what is wrong.",
        )
    else:
        yield ok("parked", "no record is parked")
    if health.data_losses:
        yield warn(
            "data losses",
            f"Redis has lost its data {health.data_losses} time(s)",
            "Give it an append-only file (docs/redis.md).",
        )


def of_dead_webhooks(client: Client, dead: int) -> Finding:
    """Events that could not be delivered to a client's own server."""
    name = f"webhooks {client.client_id}"
    if not dead:
        return ok(name, "none was given up")
    return warn(
        name,
        f"{dead} event(s) were given up",
        f"Tell the client. Afterwards: celery -A dispatcher call dispatcher.tasks.resend_webhooks "
        f"--args '[\"{client.client_id}\"]' (docs/webhooks.md).",
    )


def of_figures(figures: Figures) -> Iterator[Finding]:
    """How the sessions of the last minutes went."""
    for client in figures.clients:
        name = f"sessions {client.client_id}"
        reasons = ", ".join(f"{reason} {count}" for reason, count in client.failed.items())
        message = (
            f"{client.joined} joined, {client.failures} failed in the last {figures.window}"
            + (f" ({reasons})" if reasons else "")
        )
        rate = client.success_rate
        if rate is not None and rate < LOW_SUCCESS and client.joined + client.failures >= FEW:
            yield warn(name, message, "`dispatch list --state failed --since 5m`, then `show`.")
        else:
            yield ok(name, message)


def verdict(findings: Iterable[Finding]) -> Status:
    """The worst of them."""
    seen = {finding.status for finding in findings}
    for status in (Status.FAIL, Status.WARN):
        if status in seen:
            return status
    return Status.OK
