"""Clients and agents for which a worker process is configured.

Each worker reports them with its heartbeat, so that `dispatch doctor` and `/readyz` judge by the
configuration of the workers, not by that of the process that asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dispatcher.clients.models import Client
from dispatcher.domain.models import AgentServerReport


@dataclass(frozen=True, kw_only=True)
class Service:
    """One agent of one enabled client; `default` marks the agent of a request without a name."""

    client_id: str
    agent_name: str
    container: str = ""
    default: bool = False


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """What one worker process serves, and the agents whose servers report nothing to it."""

    worker: str
    queues: tuple[str, ...] = ()
    services: tuple[Service, ...] = ()
    unfenced: tuple[str, ...] = ()


def services_of(clients: Iterable[Client]) -> tuple[Service, ...]:
    """Return every agent of every client that is not disabled."""
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
    """Return the services of this process and of every worker, once each; a worker's entry wins."""
    found = {(each.client_id, each.agent_name): each for each in here}
    for worker in workers:
        found |= {(each.client_id, each.agent_name): each for each in worker.services}
    return tuple(found[name] for name in sorted(found))


def serving(service: Service, servers: Iterable[AgentServerReport]) -> list[AgentServerReport]:
    """Return the agent servers for this service, online or not."""
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
    """Return the services with no agent server online; servers without reports cannot be missed."""
    return [
        service
        for service in services
        if service.agent_name not in unfenced
        and not any(server.online for server in serving(service, servers))
    ]
