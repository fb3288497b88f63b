"""The reason why a dispatch has no agent, as a code and a sentence. Pure.

The sentence becomes the record's `failure_message`, which operators read as the cause;
`explain/texts.py` has a headline and advice for each reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from dispatcher.domain.agent_servers import can_take, eligible, serving
from dispatcher.domain.models import AgentServerReport, Dispatch, FailureReason, State
from dispatcher.domain.timing import is_starting, unchanged_s

# An attempt younger than this at the deadline has not shown anything yet: it takes as long to tell
# that LiveKit has dropped a job.
_FRESH_S: Final = 2.0

FULL: Final = "full"  # the request filter's reason for a reject when all its slots are taken


@dataclass(frozen=True, kw_only=True)
class Reason:
    """Why there is no agent: a code for programs, a sentence for people."""

    code: str
    message: str


def why_promised(dispatch: Dispatch) -> Reason:
    """Return why a dispatch waits although agent servers report free slots."""
    return Reason(
        code=FailureReason.NO_CAPACITY,
        message=f"every free slot for agent {dispatch.agent_name!r} is promised to another session "
        "that is on its way; add agent servers or raise USHER_AGENT_SLOTS",
    )


def why_paced(dispatch: Dispatch) -> Reason:
    """Return why a dispatch waits although some free slots are promised to no session."""
    return Reason(
        code=FailureReason.JOIN_TIMEOUT,
        message=f"LiveKit has dropped jobs for agent {dispatch.agent_name!r} just now, so only a "
        "few are sent at once; look at the load and the logs of LiveKit and of the agent servers",
    )


def why_no_agent(
    dispatch: Dispatch, servers: Sequence[AgentServerReport], *, fenced: bool = True
) -> Reason:
    """Return the reason why the present attempt has brought no agent.

    Where the agent's servers report nothing (`fenced` is false), only its absence is known.
    """
    rejected = dispatch.attempt.reason
    if not fenced:
        return Reason(
            code=FailureReason.JOIN_TIMEOUT,
            message=f"LiveKit has listed no agent {dispatch.agent_name!r} in the room; its servers "
            "report nothing to Usher, so look whether one is registered at LiveKit, and into its "
            "log",
        )
    if dispatch.state is State.ACCEPTED:
        return Reason(code=FailureReason.JOIN_TIMEOUT, message=_never_connected(dispatch))
    if rejected and rejected != FULL:
        return Reason(
            code=f"{FailureReason.REJECTED}: {rejected}",
            message=f"an agent server refused the job ({rejected}); its log says why",
        )
    able = eligible(dispatch, servers)
    if not able:
        return Reason(code=FailureReason.NO_AGENT_ONLINE, message=_none_online(dispatch, servers))
    if full := _none_has_room(dispatch, able):
        return Reason(code=FailureReason.NO_CAPACITY, message=full)
    if dispatch.attempt.placed:
        return Reason(
            code=FailureReason.JOIN_TIMEOUT,
            message=f"agent server {dispatch.attempt.agent_server_id} did not take the job that it "
            "was given: it hangs, is overloaded or has died; look into its log",
        )
    return Reason(
        code=FailureReason.JOIN_TIMEOUT,
        message=f"LiveKit offered the job to none of the {len(able)} agent server(s) for agent "
        f"{dispatch.agent_name!r} that report themselves; check that they are registered at this "
        "client's LiveKit server",
    )


def _never_connected(dispatch: Dispatch) -> str:
    """Say why a job that an agent server accepted has brought no agent."""
    if is_starting(dispatch):
        return (
            f"job {dispatch.job_id} of agent server {dispatch.agent_server_id} was still starting: "
            "its process lives and has not connected; have the program connect sooner (load models "
            "in its setup_fnc, keep more idle processes), or raise the client's deadline_s"
        )
    return (
        f"agent server {dispatch.agent_server_id} accepted job {dispatch.job_id}, and then nothing "
        "was heard of it: the job or its machine died, or hangs; look into its log for that job"
    )


def _none_has_room(dispatch: Dispatch, able: Sequence[AgentServerReport]) -> str:
    """Say why the online agent servers take no job; "" where one would take it."""
    wanted = f"agent {dispatch.agent_name!r}"
    busy = [server for server in able if server.takes == 0 and server.used_slots < server.slots]
    if busy:
        return (
            f"{len(busy)} agent server(s) for {wanted} have free slots and take no job: their own "
            "load report (load_fnc) is above its threshold; add agent servers"
        )
    if any(server.starts == 0 and server.used_slots < server.slots for server in able):
        return (
            f"the agent server(s) for {wanted} have free slots, and as many agents joining as one "
            "process serves at a time; add agent servers"
        )
    if dispatch.attempt.reason == FULL or all(server.free_slots == 0 for server in able):
        return (
            f"every slot of the {len(able)} agent server(s) for {wanted} is taken; add agent "
            "servers or raise USHER_AGENT_SLOTS"
        )
    return ""


def _none_online(dispatch: Dispatch, servers: Sequence[AgentServerReport]) -> str:
    """Say why no agent server that may take it is online."""
    wanted = f"agent {dispatch.agent_name!r}"
    broken = [s.agent_server_id for s in serving(dispatch, servers) if s.cannot_start]
    if broken:
        more = f" and {len(broken) - 1} more" if len(broken) > 1 else ""
        return (
            f"agent server {broken[0]}{more} for {wanted} cannot start a process for a job; its "
            "log says why ('error initializing process')"
        )
    others = serving(dispatch, servers, any_deployment=True)
    deployments = {server.deployment for server in others if server.online}
    if deployments:
        asked = f"deployment {dispatch.deployment!r}" if dispatch.deployment else "no deployment"
        online = ", ".join(sorted(repr(name) if name else "(none)" for name in deployments))
        return (
            f"{wanted} was asked for with {asked}, and its agent servers are of other deployments: "
            f"{online}; ask for one of these (room_config.agents[0].deployment), or change "
            "LIVEKIT_AGENT_DEPLOYMENT of the agent servers"
        )
    where = f" in container {dispatch.container!r}" if dispatch.container else ""
    return (
        f"no agent server for {wanted}{where} is registered at LiveKit; start one "
        "(python -m worker_agent), look into its log, or correct the agent name"
    )


def nothing_new(
    dispatch: Dispatch, servers: Sequence[AgentServerReport], *, livekit_answers: bool
) -> bool:
    """Return True when a waiting dispatch would only go on waiting for its present reason."""
    if dispatch.state is not State.WAITING or can_take(dispatch, servers):
        return False
    code = why_no_agent(dispatch, servers).code
    # While LiveKit is away no agent server is registered either; LiveKit is the reason then.
    known = code != FailureReason.NO_AGENT_ONLINE or livekit_answers
    return known and code == dispatch.failure_reason


def why_too_late(
    dispatch: Dispatch, servers: Sequence[AgentServerReport], *, fenced: bool = True
) -> Reason:
    """Return the reason why a dispatch that no worker holds has run out of time."""
    if is_starting(dispatch):
        return cut_short(dispatch) or why_no_agent(dispatch, servers, fenced=fenced)
    if dispatch.failure_reason:  # the reason for which it was waiting
        return Reason(code=dispatch.failure_reason, message=dispatch.failure_message)
    if reason := cut_short(dispatch) or left_by_its_worker(dispatch):
        return reason
    if dispatch.state is State.QUEUED:
        return Reason(
            code=FailureReason.DISPATCHER_UNAVAILABLE,
            message="no dispatch worker has taken it up in time; look at the dispatch workers and "
            "the length of their queue",
        )
    return why_no_agent(dispatch, servers, fenced=fenced)


def cut_short(dispatch: Dispatch) -> Reason | None:
    """Return how the previous attempt ended, where the present one was too short to show anything.

    Between two refused attempts a record is queued or just dispatched for a moment. A deadline in
    that moment does not make the dispatcher or LiveKit the reason.
    """
    fresh = unchanged_s(dispatch) < _FRESH_S
    undecided = dispatch.state in (State.QUEUED, State.DISPATCHING, State.DISPATCHED)
    undecided = undecided or is_starting(dispatch)
    if not (fresh and undecided and dispatch.attempts) or dispatch.attempt.reason:
        return None
    before = max(dispatch.attempts, key=lambda attempt: attempt.generation * bool(attempt.reason))
    if not before.reason:
        return None
    if before.reason == dispatch.failure_reason:
        return Reason(code=before.reason, message=dispatch.failure_message)
    return Reason(
        code=before.reason,
        message=f"so attempt {before.generation} ended, and there was no time for another one; "
        "look at the attempts",
    )


def left_by_its_worker(dispatch: Dispatch) -> Reason | None:
    """Return the reason for a `dispatching` record: a live worker ends it before its deadline."""
    if dispatch.state is not State.DISPATCHING:
        return None
    return Reason(
        code=FailureReason.DISPATCHER_UNAVAILABLE,
        message="the dispatch worker that had it has died, hangs or is cut off; read its log",
    )
