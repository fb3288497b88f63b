"""Next step of a verification: look, wait, write `joined`, or give the attempt up. Pure.

`lifecycle/verification.py` carries the steps out and notes what it sees in a `Watch`; `next_step`
decides. All times are seconds of the event loop's clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from dispatcher.domain.agent_servers import can_take, eligible
from dispatcher.domain.failure_reasons import Reason, cut_short, left_by_its_worker, why_no_agent
from dispatcher.domain.models import (
    END_MARGIN_S,
    IN_FLIGHT,
    AgentServerReport,
    Dispatch,
    State,
    Transition,
)
from dispatcher.domain.rooms import AgentParticipant, RoomView, our_agent
from dispatcher.domain.state_machine import FAILED, NEXT_GENERATION, WAIT
from dispatcher.domain.timing import (
    VERIFY_GRACE_S,
    Timings,
    is_silent,
    is_starting,
    silent_in_s,
    time_is_up,
    unchanged_s,
)

# LiveKit lists an agent a moment after the agent reports that it is connected. The first look comes
# after this pause, and each pause doubles.
CONNECTED_POLL_S: Final = 0.05
# A fenced agent reports when it is connected, so until then LiveKit is asked only every so many
# polls, and so is the record once the job is claimed: of 40 requests at once the last agents join
# after some seconds, and each needs the CPU to do so.
UNCONNECTED_POLLS: Final = 4
# Of 40 requests at once on two cores, LiveKit offered the last jobs after 2.5 s.
OFFER_TIMEOUT_EACH_S: Final = 0.1
# An agent server claims a job that is placed on it within some milliseconds. One that has not is
# dead, frozen or overloaded: the next one is asked.
PLACED_TIMEOUT_S: Final = 0.4
# Interval between looks at the room of a job that starts slowly; its agent reports its connection.
STARTING_LOOK_S: Final = 1.0


class Look(Enum):
    """Read something, and decide again."""

    ROOM = "room"  # the participants, from LiveKit
    AGENT_SERVERS = "agent_servers"  # their reports, from Redis
    ON_THEIR_WAY = "on_their_way"  # how many other dispatches are sent and have not joined


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Wait up to `pause_s` for news of the agent, and read the record again."""

    pause_s: float


@dataclass(frozen=True, kw_only=True)
class Join:
    """Write `joined` for this agent, with the contents of its room."""

    agent: AgentParticipant
    room: RoomView


@dataclass(frozen=True, kw_only=True)
class Extend:
    """Go on until `until_s`; the sweeper looks at the record in `due_in_s` (None: unchanged)."""

    until_s: float
    due_in_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class Leave:
    """End the verification, with the record unchanged and due in `due_in_s` (None: unchanged).

    The record has moved on, another worker holds it, or its agent will report its connection.
    """

    due_in_s: float | None = None


@dataclass(frozen=True)
class GiveUp:
    """Give this attempt up; `after_no_join` decides what follows."""


Step = Look | Wait | Join | Extend | Leave | GiveUp


@dataclass(kw_only=True)
class Watch:
    """Progress of one verification."""

    fenced: bool  # the agent's servers report themselves and their jobs
    now_s: float  # when the record that the next step is about was read
    until_s: float  # the agent has until then to join
    looked_at_s: float  # when the room was last looked at, or the watch began
    woken: bool = False  # news of the agent has come since the previous read of the record
    connected_poll_s: float = CONNECTED_POLL_S  # the next pause, once the agent is connected
    # As seen since the record was read; None: not looked at.
    room: RoomView | None = None
    agent_servers: Sequence[AgentServerReport] | None = None
    on_their_way: int | None = None
    overtaken: bool = False  # `joined` could not be written: the record has moved on

    @property
    def left_s(self) -> float:
        """Seconds that the agent has left to join."""
        return self.until_s - self.now_s

    def waited(self, before: Dispatch, *, now_s: float, woken: bool) -> None:
        """Note a pause and a new read of the record; `before` is the record from before it."""
        if before.agent_identity:
            self.connected_poll_s *= 2
        self.now_s, self.woken = now_s, woken
        self.room = self.agent_servers = self.on_their_way = None
        self.overtaken = False


def begin(dispatch: Dispatch, timings: Timings, *, fenced: bool, now_s: float) -> Watch:
    """Return a new watch for a dispatch that has just been sent, or is verified further."""
    wait_s = min(timings.verify_timeout_s, max(0.0, dispatch.remaining_s - END_MARGIN_S))
    if is_starting(dispatch) and unchanged_s(dispatch) > timings.verify_timeout_s:
        wait_s = 0.0  # a job that starts slowly is only looked at
    return Watch(fenced=fenced, now_s=now_s, until_s=now_s + wait_s, looked_at_s=now_s)


def next_step(dispatch: Dispatch, watch: Watch, timings: Timings) -> Step:
    """Return the next step for the record as last read, and what has been seen since."""
    if dispatch.state not in IN_FLIGHT:
        return Leave()
    if is_silent(dispatch) or _passed_by(dispatch):
        return GiveUp()
    if watch.room is None and _room_is_due(dispatch, watch, timings):
        return Look.ROOM
    if watch.room is not None and not watch.overtaken:
        agent = our_agent(dispatch, watch.room.agents, fenced=watch.fenced)
        if agent is not None:
            return Join(agent=agent, room=watch.room)
    if watch.now_s >= watch.until_s:
        return _at_its_end(dispatch, watch, timings)
    dropped = _if_dropped(dispatch, watch, timings)
    return dropped or Wait(pause_s=min(_pause_s(dispatch, watch, timings), watch.left_s))


def _rare_poll_s(watch: Watch, timings: Timings) -> float:
    return timings.verify_poll_s * (UNCONNECTED_POLLS if watch.fenced else 1)


def _room_is_due(dispatch: Dispatch, watch: Watch, timings: Timings) -> bool:
    due_s = min(watch.looked_at_s + _rare_poll_s(watch, timings), watch.until_s)
    return bool(dispatch.agent_identity) or watch.woken or watch.now_s >= due_s


def _pause_s(dispatch: Dispatch, watch: Watch, timings: Timings) -> float:
    poll_s = timings.verify_poll_s
    if dispatch.agent_identity:
        return min(watch.connected_poll_s, poll_s)
    if dispatch.attempt.placed and dispatch.state is State.DISPATCHED:
        return min(poll_s, PLACED_TIMEOUT_S - unchanged_s(dispatch))
    return min(_rare_poll_s(watch, timings), max(poll_s, silent_in_s(dispatch)))


def _at_its_end(dispatch: Dispatch, watch: Watch, timings: Timings) -> Step:
    """Return the step at the end of the agent's time, when the room was just looked at.

    A `dispatching` record means that this message was superfluous: its worker still holds it. The
    agent of a job that starts slowly reports its connection. Until then the sweeper has it looked
    at now and then, so that it occupies no worker.

    An agent that was accepted late has the rest of the time that every agent has to join. One that
    is connecting has twice that time: it is slow because its machine is busy, and a replacement
    would be slower.
    """
    if not time_is_up(dispatch):
        if is_starting(dispatch):
            return Leave(due_in_s=STARTING_LOOK_S)
        if dispatch.state is State.DISPATCHING:
            return Leave()
    if dispatch.state is not State.ACCEPTED:
        return GiveUp()
    arriving = watch.room.joining if watch.room else ()
    joining = our_agent(dispatch, arriving, fenced=watch.fenced) is not None
    own_time_s = timings.verify_timeout_s * (1 + joining) - unchanged_s(dispatch)
    left_s = min(own_time_s, dispatch.remaining_s - END_MARGIN_S)
    until_s = watch.until_s + left_s
    if left_s <= 0 or watch.now_s >= until_s:
        return GiveUp()
    return Extend(until_s=until_s, due_in_s=left_s + VERIFY_GRACE_S if joining else None)


def _passed_by(dispatch: Dispatch) -> bool:
    """Return True when the one agent server that has been given the job does not take it.

    Without a claim no agent of this attempt can be in the room, so LiveKit need not be asked.
    """
    if not dispatch.attempt.placed:
        return False
    waits = dispatch.state is State.DISPATCHED and unchanged_s(dispatch) < PLACED_TIMEOUT_S
    return dispatch.state in (State.DISPATCHED, State.OFFERED) and not waits


def _if_dropped(dispatch: Dispatch, watch: Watch, timings: Timings) -> Look | GiveUp | None:
    """Give up if LiveKit has dropped the job, or read what is still missing to tell.

    Only the servers of a fenced agent report that they were asked. An agent server has refused an
    `offered` job: LiveKit asks the next one at once.
    """
    if not watch.fenced or dispatch.state not in (State.DISPATCHED, State.OFFERED):
        return None
    since_s = unchanged_s(dispatch)
    timeout_s = timings.own_load_offer_timeout_s
    if since_s < timeout_s:
        return None
    if watch.agent_servers is None:
        return Look.AGENT_SERVERS
    able = eligible(dispatch, watch.agent_servers)
    if not able or any(server.takes is None for server in able):
        timeout_s = timings.offer_timeout_s
    if since_s < timeout_s:
        return None
    if watch.on_their_way is None:
        return Look.ON_THEIR_WAY
    # In a burst LiveKit offers some jobs seconds later, and asking again would only add to the
    # burst.
    timeout_s += watch.on_their_way * OFFER_TIMEOUT_EACH_S
    return GiveUp() if since_s >= timeout_s else None


def after_no_join(
    dispatch: Dispatch, servers: Sequence[AgentServerReport], *, fenced: bool = True
) -> tuple[Transition, Reason]:
    """Return what follows an attempt that has brought no agent, and why it has brought none.

    `FAILED` when the time is up, `NEXT_GENERATION` when the next attempt may start at once, `WAIT`
    until an agent server can take the job.
    """
    reason = why_no_agent(dispatch, servers, fenced=fenced)
    if time_is_up(dispatch):
        return FAILED, cut_short(dispatch) or left_by_its_worker(dispatch) or reason
    if not fenced or can_take(dispatch, servers):
        return NEXT_GENERATION, reason
    return WAIT, reason
