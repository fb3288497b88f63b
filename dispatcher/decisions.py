"""What follows from what has been seen? Pure functions of the record and of the reports.

`dispatching.py` and `verification.py` look, ask here, and write the answer down.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from dispatcher.leases import GRACE_S, STILL_TO_COME_S
from dispatcher.livekit import AgentParticipant, RoomView
from dispatcher.models import END_MARGIN_S, AgentServerReport, Dispatch, FailureReason, State

_SOON_S: Final = 0.05
# An attempt that is younger than this when its time is up has not shown anything: as long as it
# takes to tell that LiveKit has dropped a job.
_FRESH_S: Final = 2.0
# A record may have been read so long before its room was looked at.
_LOOK_MS: Final = 2_000

# `Dispatch.left_by` of an agent whose people have left, as its job tells it.
PEOPLE_LEFT: Final = "people_left"
CRASHED: Final = "crashed"  # the outcome of an attempt whose agent program raised or died

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


def our_agent(
    dispatch: Dispatch, agents: Iterable[AgentParticipant], *, fenced: bool
) -> AgentParticipant | None:
    """The agent in the room that this very generation has brought, if it is there.

    An unfenced agent (a livekit-agents program without our request filter) carries no dispatch id,
    and counts by its agent name. A fenced one without a dispatch id is another backend's.
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
    """Of unfenced agents: the one that the record stands by, else any that would do."""
    for agent in agents:
        if agent.identity == dispatch.agent_identity:
            return agent
    return our_agent(dispatch, agents, fenced=False)


def time_to_join(dispatch: Dispatch, joined_at_ms: int) -> int:
    """How long it has taken until its agent was there, in ms; `joined_at_ms` is LiveKit's clock.

    Where that cannot be, the two clocks differ, and what is certain counts: it is there by now.
    """
    until_now_ms = dispatch.read_at_ms - dispatch.requested_at_ms
    by_livekit_ms = joined_at_ms - dispatch.requested_at_ms
    possible = 0 <= by_livekit_ms <= until_now_ms + _LOOK_MS
    return by_livekit_ms if possible else max(0, until_now_ms)


def offer_is_lost(dispatch: Dispatch, *, since_dispatched_s: float, offer_timeout_s: float) -> bool:
    """True when LiveKit has most likely dropped the job: nobody was asked in time, or nobody else.

    An `offered` job is one that an agent server has refused: LiveKit asks the next one at once.
    """
    return (
        dispatch.state in (State.DISPATCHED, State.OFFERED)
        and since_dispatched_s >= offer_timeout_s
    )


def is_silent(dispatch: Dispatch) -> bool:
    """True when its agent has said that it is alive before it was seen, and says so no more.

    LiveKit lists a dead one for 21 s. The grace is for a Redis that nobody could tell anything.
    """
    return dispatch.alive_till_ms > 0 and silent_in_s(dispatch) < 0


def silent_in_s(dispatch: Dispatch) -> float:
    """When its agent would be silent; without an end while it has not said yet that it is alive.

    0 while nobody has accepted the job.
    """
    if dispatch.state is not State.ACCEPTED:
        return 0.0
    if dispatch.alive_till_ms == 0:
        return math.inf
    return (dispatch.alive_till_ms - dispatch.read_at_ms) / 1000 + GRACE_S


def is_starting(dispatch: Dispatch) -> bool:
    """True while its job says that it lives, and has not connected yet: a slow start is no death.

    The session's deadline bounds it, and nothing else.
    """
    return (
        dispatch.state is State.ACCEPTED
        and not dispatch.agent_identity
        and dispatch.alive_till_ms > 0
        and not is_silent(dispatch)
    )


def surplus_agents(
    dispatch: Dispatch, agents: Iterable[AgentParticipant], *, fenced: bool
) -> list[AgentParticipant]:
    """The agents of this dispatch, of any generation, that are not the one it stands by."""
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
    """The agents of the same name as this fenced one that carry no dispatch id of Usher's.

    Another backend has sent them: by `CreateDispatch`, by a token, by a SIP dispatch rule.
    """
    return [
        agent
        for agent in agents
        if not agent.dispatch_id
        and agent.agent_name == dispatch.agent_name
        and agent.identity != dispatch.agent_identity
    ]


def crashes_in_a_row(dispatch: Dispatch) -> int:
    """How many of its latest attempts have ended before the agent was in the room, by a crash."""
    since = range(dispatch.first_generation, dispatch.generation)
    before = [attempt for attempt in dispatch.attempts if attempt.generation in since]
    crashed = [a.outcome == CRASHED for a in sorted(before, key=lambda a: -a.generation)]
    return crashed.index(False) if False in crashed else len(crashed)


def why_crashed(dispatch: Dispatch) -> Reason:
    """Why a dispatch is given up whose agent program crashes again and again."""
    return Reason(
        code=FailureReason.AGENT_CRASHED,
        message=f"{crashes_in_a_row(dispatch)} times in a row; the last time: "
        f"{dispatch.failure_message}",
    )


def eligible(dispatch: Dispatch, servers: Iterable[AgentServerReport]) -> list[AgentServerReport]:
    """The agent servers that are online and may take this dispatch, full or not."""
    return [server for server in _serving(dispatch, servers) if server.online]


def _serving(dispatch: Dispatch, servers: Iterable[AgentServerReport]) -> list[AgentServerReport]:
    """The agent servers that are there for this client, agent and container, online or not."""
    return [
        server
        for server in servers
        if server.serves(
            client_id=dispatch.client_id,
            agent_name=dispatch.agent_name,
            container=dispatch.container,
            deployment=dispatch.deployment,
        )
    ]


def can_take(dispatch: Dispatch, servers: Iterable[AgentServerReport]) -> bool:
    """True when an agent server that may take this dispatch has a free slot."""
    return any(server.free_slots > 0 for server in eligible(dispatch, servers))


def slots_for(dispatch: Dispatch, servers: Iterable[AgentServerReport]) -> int:
    """Free slots of the agent servers that may take this dispatch."""
    return sum(server.free_slots for server in eligible(dispatch, servers))


def why_promised(dispatch: Dispatch) -> Reason:
    """Why a dispatch waits although agent servers report free slots."""
    return Reason(
        code=FailureReason.NO_CAPACITY,
        message=f"every free slot for agent {dispatch.agent_name!r} is promised to another session "
        "that is on its way; add agent servers or raise USHER_AGENT_SLOTS",
    )


def why_paced(dispatch: Dispatch) -> Reason:
    """Why a dispatch waits although agent servers have free slots that nobody is promised."""
    return Reason(
        code=FailureReason.JOIN_TIMEOUT,
        message=f"LiveKit has dropped jobs for agent {dispatch.agent_name!r} just now, so only a "
        "few are sent at once; look at the load and the logs of LiveKit and of the agent servers",
    )


def why_no_agent(
    dispatch: Dispatch, servers: Sequence[AgentServerReport], *, fenced: bool = True
) -> Reason:
    """The true reason why the present attempt has brought no agent.

    Of an agent whose servers report nothing (`fenced` is false) only its absence is known.
    """
    rejected = dispatch.attempt.reason
    wanted = f"agent {dispatch.agent_name!r}"
    if not fenced:
        return Reason(
            code=FailureReason.JOIN_TIMEOUT,
            message=f"LiveKit has listed no {wanted} in the room; its servers report nothing to "
            "Usher, so look whether one is registered at LiveKit, and into its log",
        )
    if is_starting(dispatch):
        return Reason(
            code=FailureReason.JOIN_TIMEOUT,
            message=f"job {dispatch.job_id} of agent server {dispatch.agent_server_id} was still "
            "starting: its process lives and has not connected; have the program connect sooner "
            "(load models in its setup_fnc, keep more idle processes), or raise the client's "
            "deadline_s",
        )
    if dispatch.state is State.ACCEPTED:
        return Reason(
            code=FailureReason.JOIN_TIMEOUT,
            message=f"agent server {dispatch.agent_server_id} accepted job {dispatch.job_id}, "
            "and then nothing was heard of it: the job or its machine died, or hangs; look into "
            "its log for that job",
        )
    if rejected and rejected != FULL:
        return Reason(
            code=f"{FailureReason.REJECTED}: {rejected}",
            message=f"an agent server refused the job ({rejected}); its log says why",
        )
    able = eligible(dispatch, servers)
    if not able:
        return _why_none_is_online(dispatch, servers)
    busy = [server for server in able if server.takes == 0 and server.used_slots < server.slots]
    if busy:
        return Reason(
            code=FailureReason.NO_CAPACITY,
            message=f"{len(busy)} agent server(s) for {wanted} have free slots and take no job: "
            "their own load report (load_fnc) is above its threshold; add agent servers",
        )
    if any(server.starts == 0 and server.used_slots < server.slots for server in able):
        return Reason(
            code=FailureReason.NO_CAPACITY,
            message=f"the agent server(s) for {wanted} have free slots, and as many agents joining "
            "as one process serves at a time; add agent servers",
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


def _why_none_is_online(dispatch: Dispatch, servers: Sequence[AgentServerReport]) -> Reason:
    known = _broken(dispatch, servers) or _of_another_deployment(dispatch, servers)
    return known or Reason(
        code=FailureReason.NO_AGENT_ONLINE,
        message=f"no agent server for agent {dispatch.agent_name!r}"
        + (f" in container {dispatch.container!r}" if dispatch.container else "")
        + " is registered at LiveKit; start one (python -m worker_agent), look into its log, "
        "or correct the agent name",
    )


def _broken(dispatch: Dispatch, servers: Sequence[AgentServerReport]) -> Reason | None:
    """What to say where the agent servers that may take it cannot start a job's process."""
    ids = [s.agent_server_id for s in _serving(dispatch, servers) if s.cannot_start]
    if not ids:
        return None
    return Reason(
        code=FailureReason.NO_AGENT_ONLINE,
        message=f"agent server {ids[0]}"
        + (f" and {len(ids) - 1} more" if len(ids) > 1 else "")
        + f" for agent {dispatch.agent_name!r} cannot start a process for a job; its log says why "
        "('error initializing process')",
    )


def _of_another_deployment(
    dispatch: Dispatch, servers: Sequence[AgentServerReport]
) -> Reason | None:
    """What to say where agent servers that would do are all of other deployments."""
    names = {
        server.deployment
        for server in servers
        if server.online
        and server.serves(
            client_id=dispatch.client_id,
            agent_name=dispatch.agent_name,
            container=dispatch.container,
        )
    }
    if not names:
        return None
    wanted = f"deployment {dispatch.deployment!r}" if dispatch.deployment else "no deployment"
    online = ", ".join(sorted(repr(name) if name else "(none)" for name in names))
    return Reason(
        code=FailureReason.NO_AGENT_ONLINE,
        message=f"agent {dispatch.agent_name!r} was asked for with {wanted}, and its agent servers "
        f"are of other deployments: {online}; ask for one of these "
        "(room_config.agents[0].deployment), or change LIVEKIT_AGENT_DEPLOYMENT of the agent "
        "servers",
    )


def _cut_short(dispatch: Dispatch) -> Reason | None:
    """What the attempt before has ended with, where the present one had no time to show anything.

    Between two refused attempts a record is queued or just dispatched for a moment; a deadline that
    comes in that very moment does not make the dispatcher or LiveKit the reason.
    """
    fresh = dispatch.read_at_ms - dispatch.updated_at_ms < _FRESH_S * 1000
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


def nothing_new(
    dispatch: Dispatch, servers: Sequence[AgentServerReport], *, livekit_answers: bool
) -> bool:
    """True when a waiting dispatch would only go on waiting, for the reason that it has already."""
    if dispatch.state is not State.WAITING or can_take(dispatch, servers):
        return False
    code = why_no_agent(dispatch, servers).code
    # With LiveKit away no agent server is registered either, and then that is the reason.
    known = code != FailureReason.NO_AGENT_ONLINE or livekit_answers
    return known and code == dispatch.failure_reason


def why_too_late(
    dispatch: Dispatch, servers: Sequence[AgentServerReport], *, fenced: bool = True
) -> Reason:
    """The true reason why a dispatch that nobody works on has run out of time."""
    if is_starting(dispatch):
        return _cut_short(dispatch) or why_no_agent(dispatch, servers, fenced=fenced)
    if dispatch.failure_reason:  # what it has been waiting for
        return Reason(code=dispatch.failure_reason, message=dispatch.failure_message)
    if cut_short := _cut_short(dispatch):
        return cut_short
    if left := _left_by_its_worker(dispatch):
        return left
    if dispatch.state is State.QUEUED:
        return Reason(
            code=FailureReason.DISPATCHER_UNAVAILABLE,
            message="no dispatch worker has taken it up in time; look at the dispatch workers and "
            "the length of their queue",
        )
    return why_no_agent(dispatch, servers, fenced=fenced)


def _left_by_its_worker(dispatch: Dispatch) -> Reason | None:
    """A worker that asks LiveKit for the agent ends the record itself, before its deadline."""
    if dispatch.state is not State.DISPATCHING:
        return None
    return Reason(
        code=FailureReason.DISPATCHER_UNAVAILABLE,
        message="the dispatch worker that had it has died, hangs or is cut off; read its log",
    )


def after_no_join(
    dispatch: Dispatch, servers: Sequence[AgentServerReport], *, fenced: bool = True
) -> Redispatch | Wait | Fail:
    """What to do when verification has seen no agent."""
    reason = why_no_agent(dispatch, servers, fenced=fenced)
    if time_is_up(dispatch):
        return Fail(reason=_cut_short(dispatch) or _left_by_its_worker(dispatch) or reason)
    if not fenced or can_take(dispatch, servers):
        return Redispatch(reason=reason)
    return Wait(reason=reason)


class Verdict(StrEnum):
    """What becomes of a joined dispatch whose lease has run out."""

    ALIVE = "alive"
    OVER = "over"
    REPLACE = "replace"
    PARK = "park"


# An agent that has lived for so long is no part of a series of deaths.
LONG_LIFE_S: Final = 60.0


def judge(
    dispatch: Dispatch,
    room: RoomView,
    *,
    fenced: bool,
    max_losses: int,
    abandon_after_s: float,
) -> Verdict:
    """What to do with a joined dispatch whose agent has not been heard of.

    LiveKit lists a dead agent as ACTIVE for 21 s, so for an agent that renews leases its silence
    counts, not the list; for one that does not (`fenced` is false) the list is all there is. It
    may wait for a person to come back, as one that renews does: LiveKit closes the room some time
    after the last one has left. A person who has not come yet shall find an agent.
    """
    if not fenced and agent_to_keep(dispatch, room.agents) is not None:
        return Verdict.ALIVE
    if fenced and dispatch.read_at_ms < dispatch.alive_till_ms:
        return Verdict.ALIVE
    if dispatch.state is State.LEAVING:
        # Its session was over already, unless the people have come back who had left.
        came_back = room.people > 0 and dispatch.left_by == PEOPLE_LEFT
        return Verdict.REPLACE if came_back else Verdict.OVER
    waited_s = (dispatch.read_at_ms - dispatch.created_at_ms) / 1000
    asked_s = (dispatch.read_at_ms - dispatch.asked_at_ms) / 1000
    awaited = asked_s < STILL_TO_COME_S or (not dispatch.person_seen and waited_s < abandon_after_s)
    if room.people == 0 and not awaited:
        return Verdict.OVER
    return Verdict.PARK if losses_in_a_row(dispatch) > max_losses else Verdict.REPLACE


def losses_in_a_row(dispatch: Dispatch) -> int:
    """How many agents of this dispatch have died soon after joining, the present one included."""
    # By Redis's clock, as everything else here: LiveKit's may be minutes off.
    joined_at_ms = dispatch.joined_seen_at_ms or dispatch.joined_at_ms or 0
    lived_s = (dispatch.read_at_ms - joined_at_ms) / 1000
    return 1 if lived_s >= LONG_LIFE_S else dispatch.losses + 1
