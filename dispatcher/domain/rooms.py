"""Participants of a LiveKit room as Usher sees them, and which agents are a dispatch's. Pure.

`livekit/client.py` reads these values. A fenced agent (one with Usher's request filter) carries the
id and the generation of its dispatch in its attributes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dispatcher.domain.models import Dispatch


@dataclass(frozen=True, kw_only=True)
class AgentParticipant:
    """An ACTIVE agent in a room. `joined_at_ms` is the LiveKit server's clock."""

    identity: str
    agent_name: str
    joined_at_ms: int
    dispatch_id: str
    generation: int | None


@dataclass(frozen=True, kw_only=True)
class RoomDispatch:
    """A dispatch as LiveKit lists it, with Usher's id and generation from its attributes."""

    livekit_dispatch_id: str
    dispatch_id: str
    generation: int | None


@dataclass(frozen=True, kw_only=True)
class RoomView:
    """Contents of a room."""

    agents: tuple[AgentParticipant, ...]  # that are ACTIVE
    people: int  # connected or connecting
    joining: tuple[AgentParticipant, ...] = ()  # still connecting: seconds on a busy machine


def sent_now(dispatch: Dispatch, listed: Sequence[RoomDispatch]) -> str | None:
    """Return LiveKit's id of the present generation, if LiveKit lists it."""
    for each in reversed(listed):
        if (each.dispatch_id, each.generation) == (dispatch.dispatch_id, dispatch.generation):
            return each.livekit_dispatch_id
    return None


def sent_before(dispatch: Dispatch, listed: Iterable[RoomDispatch]) -> list[str]:
    """Return LiveKit's ids of the generations before the present one.

    Later ones are left alone: a worker that was frozen for a while may come here with a stale
    generation, and must not take the agent of the present one away.
    """
    return [
        each.livekit_dispatch_id
        for each in listed
        if each.dispatch_id == dispatch.dispatch_id and (each.generation or 0) < dispatch.generation
    ]


def our_agent(
    dispatch: Dispatch, agents: Iterable[AgentParticipant], *, fenced: bool
) -> AgentParticipant | None:
    """Return the agent in the room that this generation has brought, if it is there.

    An unfenced agent (a livekit-agents program without Usher's request filter) carries no dispatch
    id, and counts by its agent name. A fenced agent without a dispatch id is another backend's.
    """
    for agent in agents:
        if agent.dispatch_id == dispatch.dispatch_id and agent.generation == dispatch.generation:
            return agent
        if not fenced and not agent.dispatch_id and agent.agent_name == dispatch.agent_name:
            return agent
    return None


def agent_to_keep(
    dispatch: Dispatch, agents: Sequence[AgentParticipant]
) -> AgentParticipant | None:
    """Return, of unfenced agents, the one in the record, else any suitable one."""
    for agent in agents:
        if agent.identity == dispatch.agent_identity:
            return agent
    return our_agent(dispatch, agents, fenced=False)


def surplus_agents(
    dispatch: Dispatch, agents: Iterable[AgentParticipant], *, fenced: bool
) -> list[AgentParticipant]:
    """Return the agents of this dispatch, of any generation, other than the one in its record."""
    return [
        agent
        for agent in agents
        if agent.identity != dispatch.agent_identity
        and (
            agent.dispatch_id == dispatch.dispatch_id
            or (not fenced and not agent.dispatch_id and agent.agent_name == dispatch.agent_name)
        )
    ]


def foreign_agents(
    dispatch: Dispatch, agents: Iterable[AgentParticipant]
) -> list[AgentParticipant]:
    """Return the agents with this fenced agent's name that carry no dispatch id of Usher's.

    Another backend has sent them: by `CreateDispatch`, by a token, by a SIP dispatch rule.
    """
    return [
        agent
        for agent in agents
        if not agent.dispatch_id
        and agent.agent_name == dispatch.agent_name
        and agent.identity != dispatch.agent_identity
    ]
