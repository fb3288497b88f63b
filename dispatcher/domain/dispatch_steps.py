"""What one try of asking LiveKit for an agent does next. Pure.

`lifecycle/asking_livekit.py` carries the steps out and notes what it sees in a `Seen`; `next_step`
decides, so that LiveKit is asked once, whatever became of the tries before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from dispatcher.domain.agent_servers import eligible
from dispatcher.domain.models import AgentServerReport, Dispatch, FailureReason, State
from dispatcher.domain.rooms import RoomDispatch


class Look(Enum):
    """Find something out, and decide again."""

    RECORD = "record"  # whether this generation is still wanted
    DISPATCHES = "dispatches"  # what LiveKit has of this dispatch in the room
    AGENT_SERVERS = "agent_servers"  # their reports; first whether LiveKit itself answers


class Ask(Enum):
    """Ask LiveKit for the agent."""

    BY_ROOM = "by_room"  # with the room that is made for it; whether it was made is seen then
    BY_DISPATCH = "by_dispatch"


@dataclass(frozen=True, kw_only=True)
class TakeBack:
    """Delete these dispatches of LiveKit's: they are of older generations."""

    livekit_dispatch_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """LiveKit has been asked for this generation, and this is its id of the dispatch."""

    livekit_dispatch_id: str


class GiveUp(Enum):
    """Do not ask LiveKit for this generation."""

    OVERTAKEN = "overtaken"  # the record stands by another generation now, or has ended
    NO_AGENT_SERVER = "no_agent_server"  # LiveKit is back, and they are not yet: it would drop it


Step = Look | Ask | TakeBack | Asked | GiveUp


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one try has seen so far.

    Attributes:
        fenced: the agent's servers report themselves.
        try_number: of this attempt, from 1.
        maybe_asked: a try before may have asked LiveKit for this generation; its answer was lost.
        record: as read again in this try; None: not read.
        dispatches: of LiveKit in the room, as listed in this try; None: not listed.
        taken_back: those of older generations are deleted.
        agent_servers: as reported in this try; None: not looked at.
        room_made: the room was made in this try, or was there.
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
    """What to do for the present generation of `dispatch`, after what this try has seen."""
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
    """True when LiveKit may have this dispatch already: the room is not made for it then."""
    by_token = dispatch.state is State.DELEGATED
    return dispatch.generation > 1 or by_token or seen.maybe_asked


def _ours(dispatch: Dispatch, seen: Seen) -> str | None:
    """LiveKit's id of this generation, where it is listed."""
    for listed in reversed(seen.dispatches or ()):
        if (listed.dispatch_id, listed.generation) == (dispatch.dispatch_id, dispatch.generation):
            return listed.livekit_dispatch_id
    return None


def _older(dispatch: Dispatch, seen: Seen) -> tuple[str, ...]:
    """LiveKit's ids of the generations before this one.

    Only of those: a worker that was frozen for a while may come here with a stale generation, and
    must not take the agent of the present one away.
    """
    return tuple(
        listed.livekit_dispatch_id
        for listed in seen.dispatches or ()
        if listed.dispatch_id == dispatch.dispatch_id
        and (listed.generation or 0) < dispatch.generation
    )


def _if_no_agent_server(dispatch: Dispatch, seen: Seen) -> Look | GiveUp | None:
    """Look for an agent server where LiveKit was away: they come back some seconds after it."""
    was_away = seen.try_number > 1 or dispatch.failure_reason == FailureReason.LIVEKIT_UNREACHABLE
    if not seen.fenced or not was_away:
        return None
    if seen.agent_servers is None:
        return Look.AGENT_SERVERS
    return None if eligible(dispatch, seen.agent_servers) else GiveUp.NO_AGENT_SERVER
