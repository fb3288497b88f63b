"""`/healthz` and `/readyz`: liveness of this process, and readiness for a session."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from flask import Blueprint

from dispatcher.clients.client_registry import ClientRegistry
from dispatcher.clients.models import Client
from dispatcher.clients.worker_settings import (
    WorkerSettings,
    all_services,
    services_of,
    without_server,
)
from dispatcher.domain.models import AgentServerReport
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import reports, statistics
from dispatcher.ledger.statistics import Health
from dispatcher.settings import DispatcherSettings
from web.auth.operator import shows_credential
from web.services import services

blueprint = Blueprint("health", __name__)

_QUEUES = ("dispatch", "verify")  # a session cannot do without a worker of these
CLIENTS_FILE = "clients_file"  # it is wrong, and the clients read before are still in use


@blueprint.get("/healthz")
def healthz() -> dict[str, str]:
    """Answer 200 as long as this process runs."""
    return {"status": "ok"}


def _kind(part: str) -> str:
    """Return the kind of a part, without the client's or the agent's name."""
    kind, _, _ = part.partition(":")
    return kind if kind in ("agent", "livekit") else part


def _has_agent_server(client: Client, servers: Iterable[AgentServerReport]) -> bool:
    return any(
        server.online
        and server.serves(
            client_id=client.client_id,
            agent_name=client.default_agent_name,
            container=client.container,
        )
        for server in servers
    )


def missing(clients: ClientRegistry, settings: DispatcherSettings, health: Health) -> list[str]:
    """Return the parts that a session needs and that have not reported themselves lately.

    Agent servers that run without our reports cannot be missed.
    """
    served = [client for client in clients.clients if not client.disabled]
    absent = [reports.worker_part(queue) for queue in _QUEUES if queue not in health.workers]
    if not health.sweeper_alive:
        absent.append(reports.SWEEPER)
    absent += [
        reports.livekit_part(c.client_id) for c in served if c.client_id not in health.livekit
    ]
    # Another client's agent server is no help, even with the same agent name.
    servers = health.agent_servers
    silent = {c.default_agent_name for c in served if not _has_agent_server(c, servers)}
    absent += [f"agent:{name}" for name in sorted(silent) if not settings.unfenced(name)]
    if clients.error:
        absent.append(CLIENTS_FILE)  # the log has what is wrong with the file
    return absent


def unserved(
    clients: ClientRegistry,
    settings: DispatcherSettings,
    workers: Iterable[WorkerSettings],
    servers: Sequence[AgentServerReport],
) -> list[str]:
    """Return the agents that this process or a worker offers and that no agent server serves."""
    workers = list(workers)
    unfenced = settings.unfenced_names.union(*(worker.unfenced for worker in workers))
    asked_for = all_services(services_of(clients.clients), workers)
    return sorted({each.agent_name for each in without_server(asked_for, servers, unfenced)})


@blueprint.get("/readyz")
def readyz() -> tuple[dict[str, Any], int]:
    """Answer 503 when no request can be accepted, else 200 with what a session would wait for.

    Without Redis sessions are delegated to LiveKit; when no client wants that, this process should
    get no requests. A missing worker, agent server or LiveKit server is no reason to turn callers
    away: their dispatches wait.
    `parked` are the ids of unreadable records, and `agents_without_server` the agents for which no
    agent server is online, if there are any; a default agent is in `not_ready` as well.
    `redis` is Redis's error when it answers and refuses to work.
    Where there are several clients, their names, those of their agents and these ids are for the
    operator (basic authentication); other callers are told which kind of part is missing.
    """
    here = services()
    named = len(here.clients.clients) == 1 or shows_credential()
    try:
        here.ledger.run(reports.probe())
        health = here.ledger.run(statistics.health())
        workers = here.ledger.run(reports.workers())
        parked = here.ledger.run(reports.parked())
    except LedgerUnavailable as error:
        delegates = any(client.delegates for client in here.clients.clients)
        status = "degraded" if delegates else "unavailable"
        without: dict[str, Any] = {"status": status, "not_ready": ["redis"]}
        if error.refusal:
            without["redis"] = error.refusal
        return without, 200 if delegates else 503
    absent = missing(here.clients, here.dispatcher, health)
    status = "degraded" if absent else "ready"
    if not named:
        return {"status": status, "not_ready": list(dict.fromkeys(map(_kind, absent)))}, 200
    answer: dict[str, Any] = {"status": status, "not_ready": absent}
    if agents := unserved(here.clients, here.dispatcher, workers, health.agent_servers):
        answer["agents_without_server"] = agents
    if parked:
        answer["parked"] = sorted(parked)
    return answer, 200
