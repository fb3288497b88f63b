"""What the evidence of a round proves. Pure functions.

An agent is living when LiveKit lists it as ACTIVE and neither its own log nor a kill says that it
is gone; it answers when a word of a person in the room comes back from it.

lost: a request was answered 2xx, its person was in the room, and for longer than the deadline no
agent answered there, and no `failed` or `cancelled` with a reason had said so by then. The clock
starts anew when an agent dies (killed, crashed, or stopped with its agent server) and when the
person comes back into the room; while nothing can be said (`helpless.py`) it stands still. Lost as
well: an accepted dispatch that the product does not know at the end, or says nothing final about.

unanswered: a person has left, asked again and joined again, no fault could be felt in that session,
LiveKit has not lost them in a room that was being deleted, and no agent answered within
`ANSWERS_AGAIN_S`. Unanswered as well: a person who was never answered in all of a stay although the
record had said `joined`.

doubled: more than one living agent in a room for longer than a recovery may take
(`OVERLAP_ALLOWED_S`); or more than one listed, alive or not, for longer than LiveKit itself lists a
dead one; or two agents that answered the same words of a person for longer than a recovery.

unexplained: a `failed` or `cancelled` without a reason, or whose reason nothing that was done can
have caused; a `joined` that neither LiveKit nor the agents know of.

ghost: an agent in the room of a dispatch that is over, at the very end.

unended: everybody has left, and at the end the product still says `joined` or `leaving`.

What else must not be is in `isolation.py`: refused, died, unhealed, and the neighbour's sessions.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from .evidence import Answer, Evidence, Room, Span, Stay
from .findings import Finding
from .helpless import helpless_s
from .isolation import find_died, find_neighbours, find_refused, find_unhealed
from .occupancy import agents_ever, overlaps, silences
from .plan import NEIGHBOURS, Kind
from .recovery import (
    ANSWERS_AGAIN_S,
    CRASH,
    DEADLINE_S,
    LATE_S,
    LOST_ROOM,
    Recovery,
    Return,
    disturbed,
    lost_to_livekit,
    recoveries,
    returns,
)

OVERLAP_ALLOWED_S: Final = 5.0
LISTED_DEAD_S: Final = 25.0
ANSWER_WITHIN_S: Final = 1.0
# Words that one agent alone has answered in between do not end a time of two answers, unless they
# are as many as are said in this time.
_ONE_ANSWER_ENDS_S: Final = 3.0

_EXPLICIT: Final = frozenset({"failed", "cancelled"})
_OVER: Final = frozenset({"ended", "failed", "cancelled"})
_WITH_AN_AGENT: Final = frozenset({"joined", "leaving"})

_AGENTS: Final = frozenset(
    {Kind.AGENT, Kind.JOB, Kind.FREEZE_AGENT, Kind.FREEZE_JOB, Kind.DRAIN, CRASH}
)
_SERVERS: Final = frozenset({Kind.AGENT, Kind.FREEZE_AGENT, Kind.DRAIN})
_WORKERS: Final = frozenset({Kind.DISPATCH, Kind.VERIFY, Kind.FREEZE_WORKER})
_REDIS: Final = frozenset({Kind.REDIS, Kind.REFUSES})
# Which faults can have led to which reason, by its word before a colon. A neighbour is no cause,
# nor is garbage while there is time to ask LiveKit again. `CRASH` and `LOST_ROOM` are those of the
# same room. An entry point that fails is no reason for `join_timeout`: it has its own.
CAUSES: Final[Mapping[str, frozenset[str]]] = {
    "no_agent_online": _SERVERS | _REDIS | {Kind.LIVEKIT},
    "no_capacity": _SERVERS,
    "rejected": _REDIS,
    "livekit_unreachable": frozenset({Kind.LIVEKIT, LOST_ROOM}),
    "join_timeout": (_AGENTS - {CRASH}) | _REDIS | {Kind.LIVEKIT},
    "agent_lost": _AGENTS,
    "agent_crashed": _AGENTS,
    "dispatcher_unavailable": _WORKERS | _REDIS,
    "superseded": _REDIS,  # promised without Redis, and the room had another one
    # What the last attempt ended with, where there was no time for another one.
    "its worker is gone": _WORKERS | _REDIS,
    "assignment_timeout": _SERVERS | {Kind.LIVEKIT},
}
# How long before a dispatch's failure its cause may lie: the deadline, and the time for which a
# process that was killed just before the request is still away.
CAUSE_WITHIN_S: Final = DEADLINE_S + 20.0
# LiveKit tells an agent of a person who publishes nothing within 3 s (its room.go,
# `subscriberUpdateInterval`); until then an agent in the room need not know of it.
NOTICED_WITHIN_S: Final = 3.0 + 0.5


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """What one round has proved, with the samples of its figures."""

    sessions: int
    accepted: int
    findings: tuple[Finding, ...]
    faults: Mapping[str, int]
    kills: int
    freezes: int
    drains: int
    foreign: int
    refusals: int  # of Redis's
    spoiled: int  # answers of LiveKit's that were garbage
    bursts: int  # of the neighbour's
    neighbours_sessions: int
    neighbours_answers: Mapping[str, int]
    people: Mapping[str, int]
    behaviours: Mapping[str, int]
    endings: Mapping[str, int]
    answers: Mapping[str, int]
    slow_answers: tuple[float, ...]
    answer_s: tuple[float, ...] = field(repr=False)
    joins_s: tuple[float, ...] = field(repr=False)
    recoveries: tuple[Recovery, ...] = field(repr=False)
    returns: tuple[Return, ...] = field(repr=False)
    overlaps_s: tuple[float, ...] = field(repr=False)
    listed_overlaps_s: tuple[float, ...] = field(repr=False)
    double_answers_s: tuple[float, ...] = field(repr=False)
    words_answered: int
    worst_lag_s: float
    lasted_s: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(evidence: Evidence) -> RoundResult:
    """Everything there is to say about a round."""
    rooms = list(evidence.rooms.values())
    rules = (
        find_lost,
        find_unanswered,
        find_doubled,
        find_unexplained,
        find_ghosts,
        find_refused,
    )
    findings = [finding for room in rooms for rule in rules for finding in rule(room, evidence)]
    for of_all in (find_neighbours, find_died, find_unhealed):
        findings += of_all(evidence)
    answers = [answer for room in rooms for answer in room.answers]
    endings = [
        _ending(evidence.records.get(dispatch_id))
        for room in rooms
        for dispatch_id in _dispatch_ids(room)
    ]
    answered = [answer for answer in answers if answer.status]
    return RoundResult(
        sessions=len(rooms),
        accepted=sum(bool(room.accepted) for room in rooms),
        findings=tuple(findings),
        faults=dict(Counter(fault.name for fault in evidence.faults)),
        kills=sum(fault.killed for fault in evidence.faults),
        freezes=sum(fault.frozen for fault in evidence.faults),
        drains=sum(fault.kind is Kind.DRAIN for fault in evidence.faults),
        foreign=sum(fault.kind is Kind.FOREIGN for fault in evidence.faults),
        refusals=sum(fault.kind is Kind.REFUSES for fault in evidence.faults),
        spoiled=sum(fault.spoiled for fault in evidence.faults),
        bursts=sum(fault.kind in NEIGHBOURS for fault in evidence.faults),
        neighbours_sessions=len(_ids(evidence.neighbour.answers)),
        neighbours_answers=_statuses(evidence.neighbour.answers),
        people=dict(Counter(str(room.person) for room in rooms)),
        behaviours=dict(Counter(str(room.behaviour) for room in rooms)),
        endings=dict(Counter(endings)),
        answers=_statuses(answers),
        slow_answers=tuple(a.took_s for a in answered if _waited_s(a, evidence) > ANSWER_WITHIN_S),
        answer_s=tuple(a.took_s for a in answered),
        joins_s=tuple(took for room in rooms if (took := time_to_join(room)) is not None),
        recoveries=tuple(recoveries(evidence)),
        returns=tuple(one for room in rooms for one in returns(room, evidence)),
        overlaps_s=tuple(
            span.lasts_s for room in rooms for span in overlaps(room, evidence, living_only=True)
        ),
        listed_overlaps_s=tuple(
            span.lasts_s for room in rooms for span in overlaps(room, evidence, living_only=False)
        ),
        double_answers_s=tuple(span.lasts_s for room in rooms for span in double_answers(room)),
        words_answered=sum(len(stay.echoes) for room in rooms for stay in room.stays),
        worst_lag_s=max((lag.lasts_s for lag in evidence.lags), default=0.0),
        lasted_s=evidence.ended_at - evidence.started_at,
    )


def find_lost(room: Room, evidence: Evidence) -> Iterator[Finding]:
    """People without an answer and without a word, and dispatches without an end."""
    for stay in room.stays:
        for silence in silences(room, stay, evidence):
            told_by = silence.start + DEADLINE_S + LATE_S
            told_by += helpless_s(Span(start=silence.start, end=told_by), evidence)
            if silence.end <= told_by:
                continue
            answer = _answer_that_holds(room, told_by)
            if answer is None or _told(evidence.records.get(answer.dispatch_id), by=told_by):
                continue
            yield Finding(
                what="lost",
                room=room.name,
                dispatch_id=answer.dispatch_id,
                at=silence.start,
                detail=f"a person whom no agent answered for {silence.lasts_s:.1f} s",
            )
    for dispatch_id in _dispatch_ids(room):
        yield from _find_late_or_open(dispatch_id, room, evidence)


def _find_late_or_open(dispatch_id: str, room: Room, evidence: Evidence) -> Iterator[Finding]:
    record = evidence.records.get(dispatch_id)
    ending = _ending(record)
    late_s = _late_s(record["body"], evidence) if record is not None and ending == "failed" else 0.0
    if record is not None and late_s > 0:
        yield Finding(
            what="lost",
            room=room.name,
            dispatch_id=dispatch_id,
            at=record["body"]["deadline_at_ms"] / 1000,
            detail=f"failed {late_s + LATE_S:.1f} s after its deadline",
        )
    if ending not in _OVER:
        yield Finding(
            what="unended" if ending in _WITH_AN_AGENT else "lost",
            room=room.name,
            dispatch_id=dispatch_id,
            at=evidence.ended_at,
            detail=f"at the end the product says: {ending}",
        )


def find_unanswered(room: Room, evidence: Evidence) -> Iterator[Finding]:
    """People whom no agent answers, or too late, where nothing was done to their session."""
    for back in returns(room, evidence):
        if back.undisturbed and back.waited_s > back.bound_s:
            answered = "answered" if back.answered else "not answered"
            yield _unanswered(
                room,
                back.at,
                f"{back.behaviour}: {answered} for {back.waited_s:.1f} s after a return "
                f"{back.gap_s:.1f} s after leaving",
            )
    for stay in room.stays:
        together = _with_a_joined_agent(room, stay, evidence)
        if (
            stay.back_after_s is None
            and not stay.echoes
            and together is not None
            and together.lasts_s > ANSWERS_AGAIN_S + LATE_S
            and not disturbed(room, together, evidence)
        ):
            yield _unanswered(
                room,
                together.start,
                f"{room.behaviour}: the record says joined, and not a word was answered in "
                f"{together.lasts_s:.1f} s",
            )


def _unanswered(room: Room, at: float, detail: str) -> Finding:
    answer = _answer_that_holds(room, at)
    return Finding(
        what="unanswered",
        room=room.name,
        dispatch_id=answer.dispatch_id if answer else "",
        at=at,
        detail=detail,
    )


def _with_a_joined_agent(room: Room, stay: Stay, evidence: Evidence) -> Span | None:
    """The part of a stay after the record of its dispatch has last said that an agent joined."""
    answer = _answer_that_holds(room, stay.end)
    record = evidence.records.get(answer.dispatch_id) if answer else None
    if record is None or record["status"] != 200:
        return None
    joined = [
        at
        for event in record["body"]["timeline"]
        if event["event"] == "joined" and (at := event["at_ms"] / 1000) < stay.end
    ]
    return Span(start=max(stay.start, joined[-1]), end=stay.end) if joined else None


def find_doubled(room: Room, evidence: Evidence) -> Iterator[Finding]:
    """Rooms with more than one agent for longer than a recovery."""
    living = overlaps(room, evidence, living_only=True)
    listed = overlaps(room, evidence, living_only=False)
    for spans, allowed_s, what in (
        (living, OVERLAP_ALLOWED_S, "more than one living agent"),
        (listed, LISTED_DEAD_S, "more than one listed agent"),
        (double_answers(room), OVERLAP_ALLOWED_S, "the same words answered by two agents"),
    ):
        for span in spans:
            if span.lasts_s - _held_up_s(span, evidence) > allowed_s:
                yield Finding(
                    what="doubled",
                    room=room.name,
                    dispatch_id=room.accepted[-1].dispatch_id if room.accepted else "",
                    at=span.start,
                    detail=f"{what} for {span.lasts_s:.1f} s",
                )


def _held_up_s(span: Span, evidence: Evidence) -> float:
    """For how long of a stretch a worker stood still with what it had taken from its queue."""
    return sum(
        max(0.0, min(span.end, fault.until) - max(span.start, fault.at))
        for fault in evidence.faults
        if fault.kind is Kind.FREEZE_WORKER
    )


def double_answers(room: Room) -> list[Span]:
    """When a person's words were answered by more than one agent."""
    found = []
    for who in sorted({stay.who for stay in room.stays}):
        agents: dict[int, set[str]] = defaultdict(set)
        doubled: list[float] = []
        for echo in room.echoes_of(who):
            agents[echo.word].add(echo.agent)
            if len(agents[echo.word]) > 1:
                doubled.append(echo.at)
        found += _stretches(doubled, ends_s=_ONE_ANSWER_ENDS_S)
    return found


def _stretches(moments: list[float], *, ends_s: float) -> list[Span]:
    """Moments that follow each other within `ends_s`, as spans."""
    spans: list[Span] = []
    for at in sorted(moments):
        if spans and at - spans[-1].end <= ends_s:
            spans[-1] = Span(start=spans[-1].start, end=at)
        else:
            spans.append(Span(start=at, end=at))
    return spans


def find_unexplained(room: Room, evidence: Evidence) -> Iterator[Finding]:
    """Endings whose reason is missing or not true."""
    for dispatch_id in _dispatch_ids(room):
        record = evidence.records.get(dispatch_id)
        if record is None or record["status"] != 200:
            continue
        if why := _what_is_wrong(record["body"], room, evidence):
            yield Finding(
                what="unexplained",
                room=room.name,
                dispatch_id=dispatch_id,
                at=record["t"],
                detail=why,
            )


def find_ghosts(room: Room, evidence: Evidence) -> Iterator[Finding]:
    """Agents that are left in the room of a dispatch that is over."""
    over = all(_ending(evidence.records.get(one)) in _OVER for one in _dispatch_ids(room))
    if room.final_agents and over:
        yield Finding(
            what="ghost",
            room=room.name,
            dispatch_id=room.accepted[-1].dispatch_id if room.accepted else "",
            at=evidence.ended_at,
            detail=f"still there: {', '.join(room.final_agents)}",
        )


def time_to_join(room: Room) -> float | None:
    """Seconds from the first accepted request to the first agent, by LiveKit's own clock."""
    joined_at_ms = [at_ms for view in room.views for at_ms in (view.agents or {}).values()]
    if not room.accepted or not joined_at_ms:
        return None
    return max(0.0, min(joined_at_ms) / 1000 - room.accepted[0].asked_at)


def _waited_s(answer: Answer, evidence: Evidence) -> float:
    """How long the client has waited for the server: without the time in which it was held up."""
    asked_at, answered_at = answer.asked_at, answer.asked_at + answer.took_s
    shared = (min(answered_at, lag.end) - max(asked_at, lag.start) for lag in evidence.lags)
    return answer.took_s - sum(max(0.0, seconds) for seconds in shared)


def _late_s(body: Mapping[str, Any], evidence: Evidence) -> float:
    """How long after its deadline, and what is allowed on top, a dispatch has failed."""
    late = Span(start=body["deadline_at_ms"] / 1000, end=body["timeline"][-1]["at_ms"] / 1000)
    return late.lasts_s - LATE_S - helpless_s(late, evidence)


def _answer_that_holds(room: Room, at: float) -> Answer | None:
    accepted = [answer for answer in room.accepted if answer.asked_at <= at]
    return accepted[-1] if accepted else None


def _told(record: Mapping[str, Any] | None, *, by: float) -> bool:
    """True when the record had ended by then with a word of why."""
    if record is None or record["status"] != 200:
        return False
    body = record["body"]
    if body["state"] not in _EXPLICIT or not body["failure_reason"]:
        return False
    ended = [event["at_ms"] / 1000 for event in body["timeline"] if event["event"] in _EXPLICIT]
    return bool(ended) and ended[-1] <= by


def _what_is_wrong(body: Mapping[str, Any], room: Room, evidence: Evidence) -> str:
    """What is not true of an ending; empty when it is true."""
    if body["state"] == "ended":
        agent = body["agent_identity"]
        listed = any(agent in (view.agents or {}) for view in room.views)
        if agent and not listed and evidence.liveness.joined_at(agent) is None:
            return f"it says that {agent} joined, and neither LiveKit nor the agent's log does"
        return ""
    if body["state"] not in _EXPLICIT:
        return ""
    reason = body["failure_reason"] or ""
    if not reason:
        return f"{body['state']} without a reason"
    ended_at = body["timeline"][-1]["at_ms"] / 1000
    if reason == "nobody_came":
        # Where a person has come back there is more than one dispatch, each with its own agents.
        alone = len(_dispatch_ids(room)) == 1
        agents = agents_ever(room, evidence.liveness) if alone else {body["agent_identity"] or ""}
        met = _met(agents, room, evidence)
        return "nobody_came, and its person had met the agent" if met else ""
    causes = CAUSES.get(reason.partition(":")[0], frozenset())
    if reason == "livekit_unreachable" and _garbage_to_the_last(body["timeline"], evidence):
        return ""
    if not causes & _done_to(room, ended_at, evidence):
        return f"{body['state']}: {reason}, and nothing was done that leads to that"
    return ""


def _garbage_to_the_last(timeline: list[Mapping[str, Any]], evidence: Evidence) -> bool:
    """True when all answers to a dispatch's last attempt were garbage: no time was left to ask."""
    starts = [event["at_ms"] / 1000 for event in timeline if event["event"] == "dispatching"]
    ended_at = timeline[-1]["at_ms"] / 1000
    return bool(starts) and any(
        fault.kind is Kind.GARBAGE and fault.at <= starts[-1] and ended_at <= fault.until
        for fault in evidence.faults
    )


def _done_to(room: Room, ended_at: float, evidence: Evidence) -> set[str]:
    """The faults that can have led to an ending at that time."""
    since = ended_at - CAUSE_WITHIN_S
    done: set[str] = {fault.kind for fault in evidence.faults if since <= fault.at <= ended_at}
    crashes = evidence.liveness.crashes
    if any(crash.room == room.name and since <= crash.at <= ended_at for crash in crashes):
        done.add(CRASH)
    stays = [stay for stay in room.stays if since <= stay.start <= ended_at]
    if any(lost_to_livekit(room, stay, evidence) for stay in stays):
        done.add(LOST_ROOM)
    return done


def _met(agents: Iterable[str], room: Room, evidence: Evidence) -> bool:
    """True when a person and an agent were in the room together for long enough to notice."""
    for agent in agents:
        since = evidence.liveness.joined_at(agent)
        until = evidence.liveness.ended_at(agent) or evidence.ended_at
        for stay in room.stays:
            if since and min(stay.end, until) - max(stay.start, since) > NOTICED_WITHIN_S:
                return True
    return False


def _dispatch_ids(room: Room) -> list[str]:
    return _ids(room.accepted)


def _ids(answers: Iterable[Answer]) -> list[str]:
    return list(dict.fromkeys(answer.dispatch_id for answer in answers if answer.dispatch_id))


def _statuses(answers: Iterable[Answer]) -> dict[str, int]:
    return dict(Counter(str(answer.status) if answer.status else "none" for answer in answers))


def _ending(record: Mapping[str, Any] | None) -> str:
    """How the product says that a dispatch stands."""
    if record is None:
        return "nothing"
    return str(record["body"]["state"]) if record["status"] == 200 else f"HTTP {record['status']}"
