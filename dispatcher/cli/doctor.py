"""`dispatch doctor`: check everything that a session needs, and say what to do.

The checks run side by side, each with a time-out, so the answer is there in five seconds whatever
hangs. `server_findings.py` and `ledger_findings.py` interpret the answers.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from email.utils import parsedate_to_datetime
from itertools import chain
from typing import Final

import aiohttp
import click

from dispatcher.cli import findings, ledger_findings, reach, server_findings
from dispatcher.cli.command import Command, Exit, emit, leave, printable, redis_address
from dispatcher.cli.findings import Finding, Status
from dispatcher.cli.rendering import wrapped
from dispatcher.clients.models import Client
from dispatcher.clients.registry import registry
from dispatcher.clients.worker_settings import all_services, services_of
from dispatcher.domain.metrics import Window
from dispatcher.errors import ConfigurationError, LedgerUnavailable, LiveKitError
from dispatcher.ledger import keys, reports, statistics
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.livekit.client import LiveKitClients
from dispatcher.settings import DispatcherSettings, load

WITHIN_S: Final = 4.0
_LIVEKIT_TIMEOUT_S: Final = 2.0
_PINGS: Final = 3
_COLOURS: Final = {Status.OK: "green", Status.WARN: "yellow", Status.FAIL: "red"}


@click.command(
    "doctor",
    cls=Command,
    examples=("doctor", "doctor --quiet || page-somebody", "doctor --json | jq .verdict"),
)
@click.option("--quiet", "-q", is_flag=True, help="Only what is not in order.")
@click.option("--strict", is_flag=True, help="A warning counts as a failure.")
def command(quiet: bool, strict: bool, as_json: bool) -> None:
    """Check everything that a session needs, and say what to do.

    That is Redis, LiveKit, agent servers, workers, queues and settings. Ends with 0 when nothing
    failed, with 1 when something did, and with 4 when Redis did not answer. It takes five seconds
    at most, whatever hangs.
    """
    # `asyncio.run`, and Python at its end, would wait for a thread that hangs in a DNS look-up.
    found = asyncio.new_event_loop().run_until_complete(_examine())
    if as_json:
        emit({"verdict": findings.verdict(found), "checks": [asdict(each) for each in found]})
    else:
        _print(found, quiet=quiet)
    leave(_exit_code(found, strict=strict))


def _exit_code(found: Sequence[Finding], *, strict: bool) -> Exit:
    if any(each.name == "redis" and each.status is Status.FAIL for each in found):
        return Exit.REDIS_UNREACHABLE
    bad = {Status.FAIL, Status.WARN} if strict else {Status.FAIL}
    return Exit.NEGATIVE if any(each.status in bad for each in found) else Exit.OK


def _print(found: Sequence[Finding], *, quiet: bool) -> None:
    for each in found:
        if quiet and each.status is Status.OK:
            continue
        status = click.style(f"{each.status:<7}", fg=_COLOURS.get(each.status))
        click.echo(f"{status} {printable(each.name)}: {printable(each.message)}")
        if each.advice:
            click.echo("\n".join(wrapped("do", each.advice, indent=13)))
    counts = Counter(each.status for each in found)
    told = ", ".join(f"{counts[status]} {status}" for status in Status if counts[status])
    worst = findings.verdict(found)
    click.echo(click.style(f"{worst}: {told}", fg=_COLOURS[worst], bold=True))


async def _examine() -> list[Finding]:
    """Return the findings of all checks, part by part."""
    found, clients = _settings()
    parts = (_part("redis", _redis(clients)), _part("livekit", _livekit(clients)))
    return list(chain(found, *await asyncio.gather(*parts)))


async def _part(name: str, part: AsyncIterator[Finding]) -> list[Finding]:
    found: list[Finding] = []
    try:
        async with asyncio.timeout(WITHIN_S):
            async for finding in part:
                found.append(finding)
    except TimeoutError:
        advice = "Something on the way there hangs: look at the network and the name server."
        found.append(findings.fail(name, f"no answer within {WITHIN_S:.0f} s", advice))
    return found


def _settings() -> tuple[list[Finding], tuple[Client, ...]]:
    """Return what is to say of this environment's settings, and the clients in them."""
    clients: tuple[Client, ...] = ()
    try:
        everyone = registry()
        clients = tuple(client for client in everyone.clients if not client.disabled)
        load(DispatcherSettings)
        reach.common_settings()
    except ConfigurationError as error:
        message = str(error).replace("Usher cannot start, set", "set")
        advice = "Run this with the environment that the workers have (README, Run it)."
        return [findings.fail("settings", message, advice)], clients
    found = [findings.ok("settings", f"{len(clients)} client(s) enabled")]
    if everyone.error:
        found.append(
            findings.warn("clients file", everyone.error, "Correct it: the old one holds.")
        )
    return found, clients


async def _redis(clients: Sequence[Client]) -> AsyncIterator[Finding]:
    try:
        settings, address = reach.common_settings(), redis_address()
    except ConfigurationError as error:
        yield findings.fail("redis", str(error), "Set REDIS_URL.")
        return
    async with AsyncLedger(settings) as store:
        try:
            latency_ms, skew_s = await _ping(store)
            facts = await store.server_facts()
            for finding in server_findings.of_redis(address, facts, latency_ms):
                yield finding
            yield server_findings.of_clock("Redis", skew_s, allowed_s=server_findings.SKEW_S)
            for finding in await _ledger(store, clients):
                yield finding
        except LedgerUnavailable as error:
            yield findings.fail(
                "redis",
                f"{address}: {error}",
                "Mend that: until then sessions are delegated to LiveKit, or refused where "
                "the client wants that.",
            )
            yield findings.skipped("ledger", "agents, workers, queues: Redis must answer")


async def _ledger(store: AsyncLedger, clients: Sequence[Client]) -> list[Finding]:
    names = [client.client_id for client in clients]
    workers = await store.run(reports.workers())
    health = await store.run(statistics.health())
    here = services_of(clients)
    services = all_services(here, workers)
    unfenced = _unfenced().union(*(worker.unfenced for worker in workers))
    webhooks = [client for client in clients if client.webhook_url]
    found = list(ledger_findings.of_workers_settings(here, workers))
    found += ledger_findings.of_agents(services, health.agent_servers, unfenced)
    found += ledger_findings.of_health(health, webhooks=bool(webhooks))
    found += ledger_findings.of_workers_livekit(workers, health)
    for client in webhooks:
        dead = await store.run(reports.backlog(keys.dead_events(client.client_id)))
        found.append(ledger_findings.of_dead_webhooks(client, dead))
    lately = await statistics.read_async(store, Window.MINUTES, names)
    return [*found, *ledger_findings.of_figures(lately)]


def _unfenced() -> frozenset[str]:
    try:
        return load(DispatcherSettings).unfenced_names
    except ConfigurationError:
        return frozenset()


async def _livekit(clients: Sequence[Client]) -> AsyncIterator[Finding]:
    if not clients:
        yield findings.skipped("livekit", "no client is configured here")
        return
    servers = LiveKitClients(timeout_s=_LIVEKIT_TIMEOUT_S)
    try:
        probes = [_probe(servers, client) for client in clients]
        for finding in await asyncio.gather(*probes):
            yield finding
    finally:
        await servers.aclose()
    urls = {client.livekit.url for client in clients}
    for clock in await asyncio.gather(*(livekit_clock(url) for url in sorted(urls))):
        if clock is not None:
            yield clock


async def _ping(store: AsyncLedger) -> tuple[float, float]:
    """Return Redis's latency (ms), and how far its clock is ahead of this machine's (s)."""
    best_ms, ahead_s = float("inf"), 0.0
    await store.run(reports.probe())  # connects
    for _ in range(_PINGS):
        before = time.time()
        clock = await store.run(reports.ping())
        after = time.time()
        if (after - before) * 1000 < best_ms:
            best_ms = (after - before) * 1000
            ahead_s = clock / 1000 - (before + after) / 2
    return best_ms, ahead_s


async def _probe(servers: LiveKitClients, client: Client) -> Finding:
    began = time.monotonic()
    try:
        await servers.for_credentials(client.livekit).probe()
    except LiveKitError as error:
        return server_findings.of_livekit_error(client, error)
    return server_findings.of_livekit(client, (time.monotonic() - began) * 1000)


async def livekit_clock(url: str) -> Finding | None:
    """Compare a LiveKit server's clock with ours, by the `Date` of its answer; None without one.

    LiveKit's API has no call for its time. That a server does not answer is the probe's finding.
    """
    timeout = aiohttp.ClientTimeout(total=_LIVEKIT_TIMEOUT_S)
    http_url = re.sub("^ws", "http", url)
    try:
        request = aiohttp.request("GET", http_url, timeout=timeout, allow_redirects=False)
        async with request as response:
            seen_s = parsedate_to_datetime(response.headers["Date"]).timestamp()
    except Exception:  # of the connection, or of an answer of whatever listens there
        return None
    skew_s = seen_s + 0.5 - time.time()  # the server's time is rounded down to the second
    name = f"LiveKit {server_findings.address(url)}"
    return server_findings.of_clock(name, skew_s, allowed_s=server_findings.LIVEKIT_SKEW_S)
