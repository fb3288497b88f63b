"""Next step of one attempt to ask LiveKit for an agent. Pure.

`lifecycle/asking_livekit.py` carries the steps out and notes what it sees in a `Seen`; `next_step`
decides, such that LiveKit is asked once per generation, whatever the result of earlier tries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from dispatcher.domain.agent_servers import eligible
from dispatcher.domain.models import AgentServerReport, Dispatch, FailureReason, State
from dispatcher.domain.rooms import RoomDispatch


class Look(Enum):
    """Read something, and decide again."""

    RECORD = "record"  # is this generation still wanted
    DISPATCHES = "dispatches"  # LiveKit's dispatches in the room that carry this dispatch's id
    AGENT_SERVERS = "agent_servers"  # their reports, after checking that LiveKit itself answers


class Ask(Enum):
    """Ask LiveKit for the agent."""

    BY_ROOM = "by_room"  # with CreateRoom; the next look tells whether LiveKit has done it
    BY_DISPATCH = "by_dispatch"


@dataclass(frozen=True, kw_only=True)
class TakeBack:
    """Delete these LiveKit dispatches: they belong to older generations."""

    livekit_dispatch_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """LiveKit has been asked for this generation; `livekit_dispatch_id` is LiveKit's id for it."""

    livekit_dispatch_id: str


class GiveUp(Enum):
    """Do not ask LiveKit for this generation."""

    OVERTAKEN = "overtaken"  # the record has a newer generation, or has ended
    NO_AGENT_SERVER = "no_agent_server"  # LiveKit is back before them: it would drop the job


Step = Look | Ask | TakeBack | Asked | GiveUp


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one try has seen so far.

    Attributes:
        fenced: the agent's servers report themselves.
        try_number: number of the try within this attempt, from 1.
        maybe_asked: an earlier try may have asked for this generation; the answer was lost.
        record: the record as this try has read it again; None: not read.
        dispatches: LiveKit's dispatches in the room, as listed in this try; None: not listed.
        taken_back: the dispatches of older generations are deleted.
        agent_servers: their reports, as read in this try; None: not read.
        room_made: this try has made the room, or has found it there.
    """

    fenced: bool
    try_number: int
    maybe_asked: bool
    record: Dispatch | None = None
    dispatches: Sequence[RoomDispatch] | None = None
    taken_back: bool = False
    agent_servers: Sequence[AgentServerReport] | None = None
    room_made: bool = False


def next_step(dispatch: Dispatch, seen: Seen) -> Step:
    """Return the next step for the present generation of `dispatch`."""
    if seen.try_number > 1 and seen.record is None:
        return Look.RECORD
    if seen.record is not None and _is_overtaken(dispatch, seen.record):
        return GiveUp.OVERTAKEN
    if seen.dispatches is None and (_maybe_asked(dispatch, seen) or seen.room_made):
        return Look.DISPATCHES
    if (older := _older(dispatch, seen)) and not seen.taken_back:
        return TakeBack(livekit_dispatch_ids=older)
    if (ours := _ours(dispatch, seen)) is not None:
        return Asked(livekit_dispatch_id=ours)
    if (missing := _if_no_agent_server(dispatch, seen)) is not None:
        return missing
    if not seen.room_made and not _maybe_asked(dispatch, seen):
        return Ask.BY_ROOM
    return Ask.BY_DISPATCH


def _is_overtaken(dispatch: Dispatch, record: Dispatch) -> bool:
    return record.generation != dispatch.generation or record.terminal


def _maybe_asked(dispatch: Dispatch, seen: Seen) -> bool:
    """Return True when LiveKit may have this dispatch already; then no room is made for it."""
    by_token = dispatch.state is State.DELEGATED
    return dispatch.generation > 1 or by_token or seen.maybe_asked


def _ours(dispatch: Dispatch, seen: Seen) -> str | None:
    """Return LiveKit's id of this generation, if LiveKit lists it."""
    for listed in reversed(seen.dispatches or ()):
        if (listed.dispatch_id, listed.generation) == (dispatch.dispatch_id, dispatch.generation):
            return listed.livekit_dispatch_id
    return None


def _older(dispatch: Dispatch, seen: Seen) -> tuple[str, ...]:
    """Return LiveKit's ids of the generations before this one.

    Later ones are left alone: a worker that was frozen for a while may come here with a stale
    generation, and must not take the agent of the present one away.
    """
    return tuple(
        listed.livekit_dispatch_id
        for listed in seen.dispatches or ()
        if listed.dispatch_id == dispatch.dispatch_id
        and (listed.generation or 0) < dispatch.generation
    )


def _if_no_agent_server(dispatch: Dispatch, seen: Seen) -> Look | GiveUp | None:
    """Require an agent server online after LiveKit was away: they register seconds after it."""
    was_away = seen.try_number > 1 or dispatch.failure_reason == FailureReason.LIVEKIT_UNREACHABLE
    if not seen.fenced or not was_away:
        return None
    if seen.agent_servers is None:
        return Look.AGENT_SERVERS
    return None if eligible(dispatch, seen.agent_servers) else GiveUp.NO_AGENT_SERVER
