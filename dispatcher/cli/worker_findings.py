"""`doctor`'s findings about the workers' settings, compared with the operator's own. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from dispatcher.cli.findings import Finding, fail, ok, warn
from dispatcher.clients.worker_settings import Service, WorkerSettings
from dispatcher.ledger.statistics import Health

_NAME = "settings of the workers"


def of_settings(here: Iterable[Service], workers: Sequence[WorkerSettings]) -> Iterator[Finding]:
    """Report whether all workers have the same clients and agents as the operator's settings."""
    if not workers:
        return  # `work_findings.py` reports that there are none
    mine = _names(here)
    theirs = [_names(worker.services) for worker in workers]
    everywhere = set[str]().union(*theirs)
    apart = {name for name in everywhere if not all(name in names for names in theirs)}
    if apart:
        yield warn(
            _NAME,
            f"the {len(workers)} workers differ: only some of them have {_listed(apart)}",
            "Start all of them with the same clients file and USHER_AGENT_NAMES.",
        )
    elif mine != everywhere:
        parts = (("only they have", everywhere - mine), ("only here are", mine - everywhere))
        told = "; ".join(f"{words} {_listed(names)}" for words, names in parts if names)
        yield warn(
            _NAME,
            f"other clients or agents than in this environment: {told}",
            "Run this with the environment that the workers have; if this one is right, correct "
            "theirs (USHER_CLIENTS_FILE, USHER_AGENT_NAMES) and restart them, and the web.",
        )
    else:
        yield ok(_NAME, f"{len(workers)} worker process(es), {len(mine)} agent(s), as here")


def _names(services: Iterable[Service]) -> set[str]:
    return {f"{service.client_id}/{service.agent_name}" for service in services}


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def of_livekit(workers: Iterable[WorkerSettings], health: Health) -> Iterator[Finding]:
    """Report whether the LiveKit servers answer the workers, with the workers' keys."""
    clients = {service.client_id for worker in workers for service in worker.services}
    for client_id in sorted(clients - health.livekit):
        yield fail(
            f"livekit {client_id} for the workers",
            "it has not answered a worker in the last seconds, or refuses its key",
            f"If `livekit {client_id}` is ok here, the workers have another URL, key or secret: "
            "correct theirs and restart them. Otherwise do what stands there.",
        )
