"""What follows from what has been seen? Pure functions of the record and of the reports.

`dispatching.py` and `verification.py` look, ask here, and write the answer down.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from dispatcher.livekit import AgentParticipant
from dispatcher.models import END_MARGIN_S, AgentServerReport, Dispatch, FailureReason, State

_SOON_S: Final = 0.05

FULL: Final = "full"  # the request filter's word for "every slot of mine is taken"


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why there is no agent: a code for programs, a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class Redispatch:
    """Give this attempt up and start the next at once."""

    reason: Reason


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Give this attempt up and wait until an agent server can take the job."""

    reason: Reason


@dataclass(frozen=True, kw_only=True)
class Fail:
    """The time is up."""

    reason: Reason


def time_is_up(dispatch: Dispatch) -> bool:
    """True when the record must end now to end before its deadline."""
    return dispatch.remaining_s <= END_MARGIN_S


def look_again_in_s(dispatch: Dispatch, wait_s: float) -> float:
    """When to look at a waiting record again: after `wait_s`, or when its time is up."""
    return max(_SOON_S, min(wait_s, dispatch.remaining_s - END_MARGIN_S))


def our_agent(dispatch: Dispatch, agents: Iterable[AgentParticipant]) -> AgentParticipant | None:
    """The agent in the room that this very generation has brought, if it is there.

    An agent that carries no dispatch id (a livekit-agents program without our request filter)
    counts by its agent name.
    """
    for agent in agents:
        if agent.dispatch_id == dispatch.dispatch_id and agent.generation == dispatch.generation:
            return agent
        if not agent.dispatch_id and agent.agent_name == dispatch.agent_name:
            return agent
    return None


def eligible(dispatch: Dispatch, servers: Iterable[AgentServerReport]) -> list[AgentServerReport]:
    """The agent servers that are online and may take this dispatch, full or not."""
    return [
        server
        for server in servers
        if server.online
        and server.agent_name == dispatch.agent_name
        and dispatch.container in ("", server.container)
        and server.client_id in ("", dispatch.client_id)
    ]


def can_take(dispatch: Dispatch, servers: Iterable[AgentServerReport]) -> bool:
    """True when an agent server that may take this dispatch has a free slot."""
    return any(server.free_slots > 0 for server in eligible(dispatch, servers))


def why_no_agent(dispatch: Dispatch, servers: Sequence[AgentServerReport]) -> Reason:
    """The true reason why the present attempt has brought no agent."""
    if dispatch.state is State.QUEUED:
        return Reason(
            code=FailureReason.DISPATCHER_UNAVAILABLE,
            message="no dispatch worker has taken it up in time; look at the dispatch workers and "
            "the length of their queue",
        )
    rejected = dispatch.attempt.reason
    wanted = f"agent {dispatch.agent_name!r}"
    if dispatch.state is State.ACCEPTED:
        return Reason(
            code=FailureReason.JOIN_TIMEOUT,
            message=f"agent server {dispatch.agent_server_id} accepted job {dispatch.job_id} "
            "but its agent did not join in time; look into its log for that job",
        )
    if rejected and rejected != FULL:
        return Reason(
            code=f"{FailureReason.REJECTED}: {rejected}",
            message=f"an agent server refused the job ({rejected}); its log says why",
        )
    able = eligible(dispatch, servers)
    if not able:
        return Reason(
            code=FailureReason.NO_AGENT_ONLINE,
            message=f"no agent server for {wanted}"
            + (f" in container {dispatch.container!r}" if dispatch.container else "")
            + " is registered at LiveKit; start one (python -m worker_agent), look into its log, "
            "or correct the agent name",
        )
    if rejected == FULL or all(server.free_slots == 0 for server in able):
        return Reason(
            code=FailureReason.NO_CAPACITY,
            message=f"every slot of the {len(able)} agent server(s) for {wanted} is taken; "
            "add agent servers or raise USHER_AGENT_SLOTS",
        )
    return Reason(
        code=FailureReason.JOIN_TIMEOUT,
        message=f"LiveKit offered the job to none of the {len(able)} agent server(s) for {wanted}"
        " that report themselves; check that they are registered at this client's LiveKit server",
    )


def after_no_join(
    dispatch: Dispatch, servers: Sequence[AgentServerReport]
) -> Redispatch | Wait | Fail:
    """What to do when verification has seen no agent."""
    reason = why_no_agent(dispatch, servers)
    if time_is_up(dispatch):
        return Fail(reason=reason)
    if can_take(dispatch, servers):
        return Redispatch(reason=reason)
    return Wait(reason=reason)
