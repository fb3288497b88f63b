"""`/healthz` and `/readyz`: liveness of this process, and readiness for a session."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from flask import Blueprint

from dispatcher.clients.client_registry import ClientRegistry
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
from web.contract.answer_schemas import Readiness
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


def missing(clients: ClientRegistry, settings: DispatcherSettings, health: Health) -> list[str]:
    """Return the parts that a session needs and that have not reported themselves lately.

    Agent servers that run without our reports cannot be missed.
    """
    absent = [reports.worker_part(queue) for queue in _QUEUES if queue not in health.workers]
    if not health.sweeper_alive:
        absent.append(reports.SWEEPER)
    ids = [client.client_id for client in clients.clients if not client.disabled]
    absent += [reports.livekit_part(each) for each in ids if each not in health.livekit]
    default = [each for each in services_of(clients.clients) if each.default]
    silent = without_server(default, health.agent_servers, settings.unfenced_names)
    absent += [f"agent:{name}" for name in sorted({each.agent_name for each in silent})]
    if clients.error:
        absent.append(CLIENTS_FILE)  # the log has what is wrong with the file
    return absent


def unserved(
    clients: ClientRegistry,
    settings: DispatcherSettings,
    workers: Sequence[WorkerSettings],
    servers: Sequence[AgentServerReport],
) -> list[str]:
    """Return the agents that this process or a worker offers and that no agent server serves."""
    unfenced = settings.unfenced_names.union(*(worker.unfenced for worker in workers))
    asked_for = all_services(services_of(clients.clients), workers)
    return sorted({each.agent_name for each in without_server(asked_for, servers, unfenced)})


@blueprint.get("/readyz")
def readyz() -> tuple[dict[str, Any], int]:
    """Answer 503 when no request can be accepted, else 200 with what a session would wait for.

    Why so few 503s: `docs/decisions/0020-readiness.md`.

    Where there are several clients, names and ids are for the operator (basic authentication);
    other callers are told which kind of part is missing.
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
        readiness = Readiness(
            status="degraded" if delegates else "unavailable",
            not_ready=["redis"],
            redis=error.refusal,
        )
        return readiness.model_dump(exclude_defaults=True), 200 if delegates else 503
    absent = missing(here.clients, here.dispatcher, health)
    status: Literal["degraded", "ready"] = "degraded" if absent else "ready"
    if named:
        agents = unserved(here.clients, here.dispatcher, workers, health.agent_servers)
        readiness = Readiness(
            status=status, not_ready=absent, agents_without_server=agents, parked=sorted(parked)
        )
    else:
        kinds = dict.fromkeys(map(_kind, absent))
        readiness = Readiness(status=status, not_ready=list(kinds))
    return readiness.model_dump(exclude_defaults=True), 200
