"""Which clients and agents a worker process is set up for.

Each worker reports it with its heartbeat, so that `dispatch doctor` and `/readyz` judge by what the
workers have, and not by the environment in which they are asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dispatcher.clients.models import Client
from dispatcher.domain.models import AgentServerReport


@dataclass(frozen=True, kw_only=True)
class Service:
    """One agent of one enabled client; `default` is what a request without a name gets."""

    client_id: str
    agent_name: str
    container: str = ""
    default: bool = False


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What one worker process serves, and which agents' servers report nothing to it."""

    worker: str
    queues: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()
    unfenced: tuple[str, ...] = ()


def services_of(clients: Iterable[Client]) -> tuple[Service, ...]:
    """Every agent of every client that is not disabled."""
    return tuple(
        Service(
            client_id=client.client_id,
            agent_name=agent_name,
            container=client.container,
            default=agent_name == client.default_agent_name,
        )
        for client in clients
        if not client.disabled
        for agent_name in client.agent_names
    )


def all_services(here: Iterable[Service], workers: Iterable[WorkerSettings]) -> tuple[Service, ...]:
    """Those of this process and of every worker, each once; a worker's word stands above."""
    found = {(each.client_id, each.agent_name): each for each in here}
    for worker in workers:
        found |= {(each.client_id, each.agent_name): each for each in worker.services}
    return tuple(found[name] for name in sorted(found))


def serving(service: Service, servers: Iterable[AgentServerReport]) -> list[AgentServerReport]:
    """The agent servers that are there for it, online or not."""
    return [
        server
        for server in servers
        if server.serves(
            client_id=service.client_id,
            agent_name=service.agent_name,
            container=service.container,
        )
    ]


def without_server(
    services: Iterable[Service], servers: Sequence[AgentServerReport], unfenced: frozenset[str]
) -> list[Service]:
    """Those that no agent server online takes; one that reports nothing cannot be missed."""
    return [
        service
        for service in services
        if service.agent_name not in unfenced
        and not any(server.online for server in serving(service, servers))
    ]
