"""How soon a person is served again: after the loss of an agent, and after a return. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Final

from .evidence import Evidence, Injected, Room, Span, Stay
from .liveness import STOPS_WITHIN_S
from .occupancy import agents_ever, blind, listed_at
from .plan import NEIGHBOURS, Kind

DEADLINE_S: Final = 20.0
# The list is looked at every 0.25 s, a word is said as often, and a loaded machine is late.
LATE_S: Final = 2.5
# Within this time an agent answers a person who has come back: what a page's user waits for
# without thinking that nothing will come.
ANSWERS_AGAIN_S: Final = 3.0

CRASH: Final = "the agent's program raises"
LOST_ROOM: Final = "a person joins a room that is being deleted"
LOSSES: Final = frozenset({Kind.AGENT, Kind.JOB, Kind.FREEZE_AGENT, Kind.FREEZE_JOB})
# For how long after a fault, or after its end, any session may feel it: until the process is at
# work again, and the time that what it had in hand waits for another one.
DISTURBS_S: Final[Mapping[Kind, float]] = {
    Kind.WEB_WORKER: 3.0,
    Kind.WEB: 5.0,
    Kind.DISPATCH: 6.0,
    Kind.VERIFY: 8.0,
    Kind.BEAT: 3.0,
    Kind.AGENT: 12.0,
    Kind.JOB: 10.0,
    Kind.REDIS: 15.0,
    Kind.LIVEKIT: 25.0,
    Kind.FREEZE_WORKER: 6.0,
    Kind.FREEZE_AGENT: 10.0,
    Kind.FREEZE_JOB: 10.0,
    Kind.DRAIN: STOPS_WITHIN_S,
    Kind.FOREIGN: 10.0,
    Kind.GARBAGE: 6.0,
    Kind.REFUSES: 15.0,
    # What a neighbour does is no excuse.
    **dict.fromkeys(NEIGHBOURS, 0.0),
}
_ONE_SESSION_S: Final = 10.0
# LiveKit ends the deletion, and a person knows of having joined, so much later than the agent that
# deletes the room knows of being out.
_SEEN_LATE_S: Final = 1.0
# After these a recovery cannot be expected to have had another agent server online.
_AGENT_AWAY_S: Final = 12.0
_AWAY_S: Final[Mapping[Kind, float]] = {Kind.LIVEKIT: 25.0, Kind.DRAIN: STOPS_WITHIN_S}


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """An agent was lost with its person in the room; how long until there was another.

    Without the time that the agent program takes by itself before it connects.
    """

    room: str
    kind: str  # of the fault, or `CRASH`
    took_s: float  # until the next one was listed
    answered_s: float | None  # until the next one answered; None: it did not
    other_server_online: bool


@dataclass(frozen=True, kw_only=True)
class Return:
    """A person has left, asked again and joined again; how long until an agent answered."""

    room: str
    person: str
    behaviour: str
    gap_s: float
    at: float
    waited_s: float  # until the first answer, or until the person left without one
    answered: bool
    undisturbed: bool
    bound_s: float


@dataclass(frozen=True, kw_only=True)
class _Loss:
    at: float
    kind: str
    agents: frozenset[str]
    fault: Injected | None


def recoveries(evidence: Evidence) -> Iterator[Recovery]:
    """For every agent that was lost under a person: how long until there was another."""
    for room in evidence.rooms.values():
        for loss in _losses(room, evidence):
            recovery = _recovery(room, loss, evidence)
            if recovery is not None:
                yield recovery


def _losses(room: Room, evidence: Evidence) -> Iterator[_Loss]:
    liveness = evidence.liveness
    for fault in evidence.faults:
        before = listed_at(room, fault.at)
        hit = frozenset(
            agent
            for agent in before
            if liveness.pid(agent) in fault.pids and liveness.alive(agent, fault.at - 0.001)
        )
        if hit and fault.kind in LOSSES:
            yield _Loss(at=fault.at, kind=fault.kind, agents=hit, fault=fault)
        elif hit and fault.kind is Kind.DRAIN:
            for agent in hit:
                died_at = liveness.died_at(agent)
                if died_at is not None and died_at <= fault.at + STOPS_WITHIN_S:
                    yield _Loss(at=died_at, kind=fault.kind, agents=frozenset({agent}), fault=fault)
    for crash in liveness.crashes:
        if crash.room == room.name and crash.agent in listed_at(room, crash.at):
            yield _Loss(at=crash.at, kind=CRASH, agents=frozenset({crash.agent}), fault=None)


def _recovery(room: Room, loss: _Loss, evidence: Evidence) -> Recovery | None:
    liveness = evidence.liveness
    there = room.stay_at(loss.at)
    before = {agent for agent in listed_at(room, loss.at) if liveness.alive(agent, loss.at)}
    if there is None or before - loss.agents:
        return None
    for view in room.views:
        fresh = set(view.agents or {}) - loss.agents
        if view.at > loss.at and any(liveness.alive(agent, view.at) for agent in fresh):
            until = view.at
            break
    else:
        until = there.end
    if until >= there.end:  # the person left first, or lost LiveKit: nothing to be seen
        until = there.end
        if until - loss.at < DEADLINE_S:
            return None
    return Recovery(
        room=room.name,
        kind=loss.kind,
        took_s=max(0.0, until - loss.at - room.starts_in_s),
        answered_s=_answered_s(room, loss.at + room.starts_in_s, loss.agents),
        other_server_online=_other_server_online(loss, until, evidence.faults),
    )


def _answered_s(room: Room, at: float, lost: Set[str]) -> float | None:
    """From `at` to the first answer of another agent to anyone in the room."""
    answers = (
        echo.at - at
        for stay in room.stays
        for echo in stay.echoes
        if echo.at > at and echo.agent not in lost
    )
    return min(answers, default=None)


def _other_server_online(loss: _Loss, until: float, faults: Iterable[Injected]) -> bool:
    """As far as one can say from outside: nothing else that it needs was hit around then."""
    for other in faults:
        if other is loss.fault:
            continue
        away_s = _AWAY_S.get(other.kind, _AGENT_AWAY_S)
        hit_an_agent = other.kind in (Kind.AGENT, Kind.FREEZE_AGENT, Kind.DRAIN)
        takes_all_down = other.kind in (Kind.LIVEKIT, Kind.REDIS, Kind.REFUSES)
        if (hit_an_agent or takes_all_down) and loss.at - away_s <= other.at <= until:
            return False
    return True


def returns(room: Room, evidence: Evidence) -> Iterator[Return]:
    """Every return into this room of which something can be said.

    A person who left without an answer before the time was up says nothing.
    """
    bound_s = ANSWERS_AGAIN_S + room.starts_in_s + LATE_S
    for stay in room.stays:
        if stay.back_after_s is None:
            continue
        answered = bool(stay.echoes)
        until = stay.echoes[0].at if answered else stay.end
        if not answered and until - stay.start <= bound_s:
            continue
        window = Span(start=stay.left_at, end=min(until, stay.start + bound_s))
        yield Return(
            room=room.name,
            person=room.person,
            behaviour=room.behaviour,
            gap_s=stay.back_after_s,
            at=stay.start,
            waited_s=until - stay.start,
            answered=answered,
            undisturbed=not disturbed(room, window, evidence)
            and not lost_to_livekit(room, stay, evidence),
            bound_s=bound_s,
        )


def lost_to_livekit(room: Room, stay: Stay, evidence: Evidence) -> bool:
    """True when a person joined while the room was being deleted.

    LiveKit leaves them in a room that it does not find again (livekit/livekit#4726). An agent
    cannot be brought there, but an explicit failure is owed.
    """
    return any(
        since <= stay.start <= until + _SEEN_LATE_S
        for since, until in evidence.liveness.deleted(room.name)
    )


def disturbed(room: Room, span: Span, evidence: Evidence) -> bool:
    """True when a fault may be felt in this room in that time."""
    for fault in evidence.faults:
        felt_until = fault.until + DISTURBS_S[fault.kind]
        if fault.at <= span.end and felt_until >= span.start and _concerns(fault, room, evidence):
            return True
    crashed = any(
        crash.room == room.name and span.start - _ONE_SESSION_S <= crash.at <= span.end
        for crash in evidence.liveness.crashes
    )
    return crashed or any(
        gap.start <= span.end and gap.end >= span.start for gap in blind(room, evidence)
    )


def _concerns(fault: Injected, room: Room, evidence: Evidence) -> bool:
    if fault.kind in NEIGHBOURS:
        return False
    if fault.kind is Kind.FOREIGN:
        return fault.room == room.name
    if fault.kind in (Kind.JOB, Kind.FREEZE_JOB):
        liveness = evidence.liveness
        return any(liveness.pid(agent) in fault.pids for agent in agents_ever(room, liveness))
    return True
