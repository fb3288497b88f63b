"""`doctor`'s findings about agent servers, workers, queues and statistics, by the ledger. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from dispatcher.cli.findings import Finding, fail, ok, warn
from dispatcher.clients.models import Client
from dispatcher.clients.worker_settings import Service, WorkerSettings, serving
from dispatcher.domain.metrics import Figures
from dispatcher.domain.models import AgentServerReport
from dispatcher.explain.incidents import seconds
from dispatcher.ledger.reports import TTL_S
from dispatcher.ledger.statistics import Health

LONG_QUEUE: Final = 100
TOO_LONG_QUEUE: Final = 1000
LATE_MS: Final = 5_000
TOO_LATE_MS: Final = 15_000
LOW_SUCCESS: Final = 0.95
# Fewer sessions than this say nothing about the rate of failures.
FEW: Final = 5
_NEEDED: Final = ("dispatch", "verify", "sweep")
_SETTINGS: Final = "settings of the workers"


def of_agents(
    services: Iterable[Service], servers: Sequence[AgentServerReport], unfenced: frozenset[str]
) -> Iterator[Finding]:
    """Report whether every agent that a client may use has a server with free slots."""
    for service in services:
        name = f"agents {service.client_id}/{service.agent_name}"
        if service.agent_name in unfenced:
            yield ok(name, "its servers report nothing to us (USHER_UNFENCED_AGENTS)")
        else:
            yield _of_agent(name, service, servers)


def _of_agent(name: str, service: Service, servers: Sequence[AgentServerReport]) -> Finding:
    there = serving(service, servers)
    online = [server for server in there if server.online]
    if not online:
        where = f" in container {service.container}" if service.container else ""
        not_online = f"; {len(there)} drain or are not registered at LiveKit" if there else ""
        return (fail if service.default else warn)(
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


def of_workers_settings(
    here: Iterable[Service], workers: Sequence[WorkerSettings]
) -> Iterator[Finding]:
    """Report whether all workers have the same clients and agents as the operator's settings."""
    if not workers:
        return  # `of_health` reports that there are none
    mine = _names(here)
    theirs = [_names(worker.services) for worker in workers]
    everywhere = set[str]().union(*theirs)
    if apart := everywhere - everywhere.intersection(*theirs):
        yield warn(
            _SETTINGS,
            f"the {len(workers)} workers differ: only some of them have {_listed(apart)}",
            "Start all of them with the same clients file and USHER_AGENT_NAMES.",
        )
    elif mine != everywhere:
        parts = (("only they have", everywhere - mine), ("only here are", mine - everywhere))
        told = "; ".join(f"{words} {_listed(names)}" for words, names in parts if names)
        yield warn(
            _SETTINGS,
            f"other clients or agents than in this environment: {told}",
            "Run this with the environment that the workers have; if this one is right, correct "
            "theirs (USHER_CLIENTS_FILE, USHER_AGENT_NAMES) and restart them, and the web.",
        )
    else:
        yield ok(_SETTINGS, f"{len(workers)} worker process(es), {len(mine)} agent(s), as here")


def _names(services: Iterable[Service]) -> set[str]:
    return {f"{service.client_id}/{service.agent_name}" for service in services}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def of_workers_livekit(workers: Iterable[WorkerSettings], health: Health) -> Iterator[Finding]:
    """Report whether the LiveKit servers answer the workers, with the workers' keys."""
    clients = {service.client_id for worker in workers for service in worker.services}
    for client_id in sorted(clients - health.livekit):
        yield fail(
            f"livekit {client_id} for the workers",
            "it has not answered a worker in the last seconds, or refuses its key",
            f"If `livekit {client_id}` is ok here, the workers have another URL, key or secret: "
            "correct theirs and restart them. Otherwise do what stands there.",
        )


def of_health(health: Health, *, webhooks: bool) -> Iterator[Finding]:
    """Report on workers, sweeper, queues and waiting dispatches."""
    for queue in (*_NEEDED, *(["webhooks"] if webhooks else [])):
        if queue in health.workers:
            yield ok(f"worker {queue}", "alive")
        else:
            yield fail(
                f"worker {queue}",
                "no worker of this queue has reported itself in the last seconds",
                "Start it (Procfile), or read its log: it needs this REDIS_URL.",
            )
    yield _sweeper(health)
    yield from _queues(health)
    yield from _records(health)


def _sweeper(health: Health) -> Finding:
    """Report whether sweeps are made: beat sends them, a dispatch worker carries them out."""
    if health.sweeper_alive:
        return ok("sweeper", "alive")
    silent = health.sweeper_silent_ms
    if silent is not None and silent < TTL_S * 1000:
        return warn(
            "sweeper",
            "beat sends no sweeps; a dispatch worker sweeps in its place",
            "Start beat (Procfile), or read its log. Nothing gets lost meanwhile.",
        )
    since = "there has been no sweep yet" if silent is None else f"no sweep for {seconds(silent)}"
    if "sweep" in health.workers:
        return fail(
            "sweeper",
            f"{since}: beat sends none, and the dispatch worker does not stand in for it",
            "Restart the dispatch worker, which hangs, and start beat: nothing that gets lost is "
            "found until then.",
        )
    waits = health.queues.get("sweep", 0)
    beats = "beat sends sweeps, and" if waits else "whether beat lives is not seen, because"
    return fail(
        "sweeper",
        f"{since}: {beats} no worker takes them",
        "Start the dispatch worker (Procfile), which serves the queue sweep.",
    )


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
    if health.internal_errors:
        told = ", ".join(f"{work} {count}" for work, count in health.internal_errors.items())
        yield warn(
            "internal errors",
            f"work has failed for reasons that nothing has expected, and went on: {told}",
            "Each is in the log of its process once, with a traceback: tell Usher's maintainers.",
        )


def of_dead_webhooks(client: Client, dead: int) -> Finding:
    """Report events that could not be delivered to a client's webhook URL."""
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
    """Report how the sessions of the last minutes went."""
    for client in figures.clients:
        name = f"sessions {client.client_id}"
        reasons = ", ".join(f"{reason} {count}" for reason, count in client.failed.items())
        message = (
            f"{client.served} joined, {client.unserved} failed in the last {figures.window}"
            + (f" ({reasons})" if reasons else "")
        )
        rate = client.success_rate
        if rate is not None and rate < LOW_SUCCESS and client.served + client.unserved >= FEW:
            yield warn(name, message, "`dispatch list --state failed --since 5m`, then `show`.")
        else:
            yield ok(name, message)
