"""Selection of the agent servers that may take a dispatch, and of their free slots. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import Final

from dispatcher.domain.models import AgentServerReport, Dispatch

# After so many attempts in a row that no agent server has taken, LiveKit is asked.
PLACED_IN_VAIN: Final = 2
# Outcomes after which an agent server is given another session's job, not this one's again.
_SERVED: Final = frozenset({"", "joined", "left"})


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


def candidates(dispatch: Dispatch, servers: Iterable[AgentServerReport]) -> list[str]:
    """Return the ids of the agent servers that Usher itself may give this dispatch's job to.

    None that has failed it before; none at all where others have been asked in vain lately.
    """
    since = range(dispatch.first_generation, dispatch.generation)
    earlier = [each for each in dispatch.attempts if each.generation in since]
    latest_first = sorted(earlier, key=lambda each: -each.generation)
    in_vain = takewhile(lambda each: each.placed and each.outcome == "given_up", latest_first)
    if len(list(in_vain)) >= PLACED_IN_VAIN:
        return []
    failed = {each.agent_server_id for each in earlier if each.outcome not in _SERVED}
    return [
        server.agent_server_id
        for server in eligible(dispatch, servers)
        if server.direct and server.free_slots > 0 and server.agent_server_id not in failed
    ]
