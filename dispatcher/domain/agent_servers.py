"""Selection of the agent servers that may take a dispatch, and of their free slots. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from dispatcher.domain.models import AgentServerReport, Dispatch


def eligible(dispatch: Dispatch, servers: Iterable[AgentServerReport]) -> list[AgentServerReport]:
    """Return the agent servers that are online and may take this dispatch, full or not."""
    return [server for server in serving(dispatch, servers) if server.online]


def serving(
    dispatch: Dispatch, servers: Iterable[AgentServerReport], *, any_deployment: bool = False
) -> list[AgentServerReport]:
    """Return the agent servers for this client, agent and container, online or not."""
    return [
        server
        for server in servers
        if server.serves(
            client_id=dispatch.client_id,
            agent_name=dispatch.agent_name,
            container=dispatch.container,
            deployment=None if any_deployment else dispatch.deployment,
        )
    ]


def can_take(dispatch: Dispatch, servers: Iterable[AgentServerReport]) -> bool:
    """Return True when an agent server that may take this dispatch has a free slot."""
    return any(server.free_slots > 0 for server in eligible(dispatch, servers))


def slots_for(dispatch: Dispatch, servers: Iterable[AgentServerReport]) -> int:
    """Return the number of free slots of the agent servers that may take this dispatch."""
    return sum(server.free_slots for server in eligible(dispatch, servers))
