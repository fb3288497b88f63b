"""`doctor`'s findings about Redis and the LiveKit servers. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

from dispatcher.cli.findings import Finding, fail, ok, warn
from dispatcher.clients.models import Client
from dispatcher.errors import LiveKitError, PermanentLiveKitError
from dispatcher.ledger.async_client import ServerFacts

SLOW_REDIS_MS: Final = 20.0
SLOW_LIVEKIT_MS: Final = 500.0
# LiveKit's clock is known to the second.
SKEW_S: Final = 1.0
LIVEKIT_SKEW_S: Final = 3.0
_NEARLY_FULL: Final = 0.8


def address(url: str) -> str:
    """Return a URL without its secrets."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname or ''}{port}"


def of_redis(where: str, facts: ServerFacts, latency_ms: float) -> Iterator[Finding]:
    """Report whether Redis is fast, and keeps its data."""
    message = f"{where} answers in {latency_ms:.1f} ms (Redis {facts.version})"
    if latency_ms > SLOW_REDIS_MS:
        yield warn("redis", message, "Move it nearer, or look at its load: every step asks it.")
    else:
        yield ok("redis", message)
    if facts.replica:
        yield fail("redis role", "it is a replica: writes fail", "Point REDIS_URL at the primary.")
    if facts.by_sentinel:
        yield _replicas(facts)
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


def _replicas(facts: ServerFacts) -> Finding:
    """Report whether a replica can take over without losing promised sessions."""
    found = f"{facts.replicas} replica(s), min-replicas-to-write {facts.min_replicas}"
    if not facts.replicas:
        return fail("redis replicas", found, "Start one: no Sentinel can make up for this Redis.")
    if facts.min_replicas == 0:
        return warn(
            "redis replicas",
            found,
            "Set min-replicas-to-write 1 and min-replicas-max-lag 3, with two replicas or more: a "
            "master that is cut off goes on taking writes, and all of those are lost "
            "(docs/redis.md).",
        )
    return ok("redis replicas", found)


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
    """Report whether a clock agrees with this machine's; `skew_s` is how far it is ahead."""
    name = f"clock {name}"
    if abs(skew_s) <= allowed_s:
        return ok(name, f"{abs(skew_s):.1f} s from this machine's")
    return warn(
        name,
        f"{abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} this machine's clock",
        "Synchronise the clocks (NTP): times to join come out wrong, and with minutes tokens fail.",
    )


def of_livekit(client: Client, latency_ms: float) -> Finding:
    """Report a LiveKit server that answers with this client's key."""
    message = f"{address(client.livekit.url)} takes the key, answers in {latency_ms:.0f} ms"
    if latency_ms > SLOW_LIVEKIT_MS:
        return warn(f"livekit {client.client_id}", message, "Look at its load and the network.")
    return ok(f"livekit {client.client_id}", message)


def of_livekit_error(client: Client, error: LiveKitError) -> Finding:
    """Report a LiveKit server that refuses the client, or does not answer."""
    if isinstance(error, PermanentLiveKitError):
        advice = "Correct this client's LIVEKIT_URL, key or secret: they do not belong together."
    else:
        advice = (
            "Start that server, or correct LIVEKIT_URL or the network between: its sessions wait."
        )
    return fail(f"livekit {client.client_id}", f"{address(client.livekit.url)}: {error}", advice)
