"""What does the evidence of a round prove? Pure functions.

Lost: a request was answered 2xx, its person was in the room, and for longer than the deadline there
was no living agent, and no `failed` or `cancelled` with a reason had said so by then. The clock
starts anew whenever an agent is lost or the person comes back into the room. Lost as well: an
accepted dispatch that the product does not know at the end, or says nothing final about.

Doubled at rest: more than one living agent in a room for longer than a recovery may take
(`OVERLAP_ALLOWED_S`); or more than one listed, alive or not, for longer than LiveKit itself lists a
dead one. An agent is living when LiveKit lists it as ACTIVE and neither its own log nor a kill says
that it is gone.

Unexplained: a `failed` or `cancelled` without a reason, or whose reason nothing that was done can
have caused; a `joined` that neither LiveKit nor the agents know of.

Ghost: an agent in the room of a dispatch that is over, at the very end.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from .evidence import Answer, Evidence, Injected, Liveness, Room, Span
from .plan import Kind

DEADLINE_S: Final = 20.0
# The list is looked at every 0.25 s, and a loaded machine is late.
LATE_S: Final = 2.5
OVERLAP_ALLOWED_S: Final = 5.0
LISTED_DEAD_S: Final = 25.0
ANSWER_WITHIN_S: Final = 1.0

_EXPLICIT: Final = frozenset({"failed", "cancelled"})
_OVER: Final = frozenset({"ended", "failed", "cancelled"})

_AGENTS: Final = frozenset({Kind.AGENT, Kind.JOB, Kind.FREEZE_AGENT, Kind.FREEZE_JOB})
_WORKERS: Final = frozenset({Kind.DISPATCH, Kind.VERIFY, Kind.FREEZE_WORKER})
# Which faults can have led to which reason, by its word before a colon.
CAUSES: Final[Mapping[str, frozenset[Kind]]] = {
    "no_agent_online": frozenset({Kind.AGENT, Kind.FREEZE_AGENT, Kind.LIVEKIT, Kind.REDIS}),
    "no_capacity": frozenset({Kind.AGENT, Kind.FREEZE_AGENT}),
    "rejected": frozenset({Kind.REDIS}),
    "livekit_unreachable": frozenset({Kind.LIVEKIT}),
    "join_timeout": _AGENTS | {Kind.LIVEKIT, Kind.REDIS},
    "agent_lost": _AGENTS,
    "dispatcher_unavailable": _WORKERS | {Kind.REDIS},
}
# How long before a dispatch's failure its cause may lie: the deadline, and the time for which a
# process that was killed just before the request is still away.
CAUSE_WITHIN_S: Final = DEADLINE_S + 20.0
# LiveKit tells an agent of a person who publishes nothing within 3 s (its room.go,
# `subscriberUpdateInterval`); until then nobody in the room can know of it.
NOTICED_WITHIN_S: Final = 3.0 + 0.5
# After these a recovery cannot be expected to have had another agent server online.
_AGENT_AWAY_S: Final = 12.0
_LIVEKIT_AWAY_S: Final = 25.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that must not be, and where."""

    what: str  # lost, unended, doubled, unexplained, ghost
    room: str
    dispatch_id: str
    at: float
    detail: str


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """An agent died with its person in the room; how long until the next one was listed."""

    room: str
    kind: Kind
    took_s: float
    other_server_online: bool


@dataclass(frozen=True, kw_only=True)
class RoundResult:
    """What one round has proved, with the samples of its figures."""

    sessions: int
    accepted: int
    findings: tuple[Finding, ...]
    faults: Mapping[str, int]
    kills: int
    freezes: int
    endings: Mapping[str, int]
    answers: Mapping[str, int]
    slow_answers: tuple[float, ...]
    answer_s: tuple[float, ...] = field(repr=False)
    joins_s: tuple[float, ...] = field(repr=False)
    recoveries: tuple[Recovery, ...] = field(repr=False)
    overlaps_s: tuple[float, ...] = field(repr=False)
    listed_overlaps_s: tuple[float, ...] = field(repr=False)
    worst_lag_s: float
    lasted_s: float

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def judge(evidence: Evidence) -> RoundResult:
    """Everything there is to say about a round."""
    rooms = evidence.rooms.values()
    findings: list[Finding] = []
    answers: dict[str, int] = {}
    endings: dict[str, int] = {}
    for room in rooms:
        findings += find_lost(room, evidence)
        findings += find_doubled(room, evidence)
        findings += find_unexplained(room, evidence)
        findings += find_ghosts(room, evidence)
        for answer in room.answers:
            name = str(answer.status) if answer.status else "none"
            answers[name] = answers.get(name, 0) + 1
        for dispatch_id in _dispatch_ids(room):
            name = _ending(evidence.records.get(dispatch_id))
            endings[name] = endings.get(name, 0) + 1
    faults: dict[str, int] = {}
    for fault in evidence.faults:
        faults[str(fault.kind)] = faults.get(str(fault.kind), 0) + 1
    answered = [answer for room in rooms for answer in room.answers if answer.status]
    return RoundResult(
        sessions=len(evidence.rooms),
        accepted=sum(bool(room.accepted) for room in rooms),
        findings=tuple(findings),
        faults=faults,
        kills=sum(fault.killed for fault in evidence.faults),
        freezes=sum(not fault.killed for fault in evidence.faults),
        endings=endings,
        answers=answers,
        slow_answers=tuple(a.took_s for a in answered if _waited_s(a, evidence) > ANSWER_WITHIN_S),
        answer_s=tuple(a.took_s for a in answered),
        joins_s=tuple(took for room in rooms if (took := time_to_join(room)) is not None),
        recoveries=tuple(recoveries(evidence)),
        overlaps_s=tuple(
            span.lasts_s for room in rooms for span in overlaps(room, evidence, living_only=True)
        ),
        listed_overlaps_s=tuple(
            span.lasts_s for room in rooms for span in overlaps(room, evidence, living_only=False)
        ),
        worst_lag_s=max((lag.lasts_s for lag in evidence.lags), default=0.0),
        lasted_s=evidence.ended_at - evidence.started_at,
    )


def find_lost(room: Room, evidence: Evidence) -> Iterator[Finding]:
    """Sessions without an agent and without a word, and dispatches that nobody knows the end of."""
    for gap in _gaps(room, evidence):
        # An agent may have come and died between two looks: the clock starts at its death.
        since = max([gap.start, *_deaths(room, evidence.liveness, within=gap)])
        if gap.end - since <= DEADLINE_S + LATE_S:
            continue
        told_by = since + DEADLINE_S + LATE_S
        answer = _answer_that_holds(room, told_by)
        if answer is None or _told(evidence.records.get(answer.dispatch_id), by=told_by):
            continue
        yield Finding(
            what="lost",
            room=room.name,
            dispatch_id=answer.dispatch_id,
            at=since,
            detail=f"a person without an agent for {gap.end - since:.1f} s",
        )
    for dispatch_id in _dispatch_ids(room):
        record = evidence.records.get(dispatch_id)
        ending = _ending(record)
        if record is not None and ending == "failed" and (late_s := _late_s(record["body"])) > 0:
            yield Finding(
                what="lost",
                room=room.name,
                dispatch_id=dispatch_id,
                at=record["body"]["deadline_at_ms"] / 1000,
                detail=f"failed {late_s + LATE_S:.1f} s after its deadline",
            )
        if ending not in _OVER:
            yield Finding(
                what="unended" if ending == "joined" else "lost",
                room=room.name,
                dispatch_id=dispatch_id,
                at=evidence.ended_at,
                detail=f"at the end the product says: {ending}",
            )


def find_doubled(room: Room, evidence: Evidence) -> Iterator[Finding]:
    """Rooms with more than one agent for longer than a recovery."""
    for living_only, allowed_s in ((True, OVERLAP_ALLOWED_S), (False, LISTED_DEAD_S)):
        for span in overlaps(room, evidence, living_only=living_only):
            if span.lasts_s > allowed_s:
                what = "living" if living_only else "listed"
                yield Finding(
                    what="doubled",
                    room=room.name,
                    dispatch_id=room.accepted[-1].dispatch_id if room.accepted else "",
                    at=span.start,
                    detail=f"more than one {what} agent for {span.lasts_s:.1f} s",
                )


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


def overlaps(room: Room, evidence: Evidence, *, living_only: bool) -> list[Span]:
    """When there was more than one agent in the room."""
    return [span for span, agents in _agents(room, evidence, living_only) if len(agents or ()) > 1]


def time_to_join(room: Room) -> float | None:
    """Seconds from the first accepted request to the first agent, by LiveKit's own clock."""
    joined_at_ms = [at_ms for view in room.views for at_ms in (view.agents or {}).values()]
    if not room.accepted or not joined_at_ms:
        return None
    return max(0.0, min(joined_at_ms) / 1000 - room.accepted[0].asked_at)


def recoveries(evidence: Evidence) -> Iterator[Recovery]:
    """For every agent that died or froze under a person: how long until there was another."""
    for fault in evidence.faults:
        if fault.kind not in _AGENTS:
            continue
        for room in evidence.rooms.values():
            recovery = _recovery(room, fault, evidence)
            if recovery is not None:
                yield recovery


def _recovery(room: Room, fault: Injected, evidence: Evidence) -> Recovery | None:
    liveness = evidence.liveness
    before = _agents_at(room, fault.at)
    hit = {agent for agent in before if liveness.pid(agent) in fault.pids}
    hit = {agent for agent in hit if liveness.alive(agent, fault.at - 0.001)}
    there = next((s for s in room.present if s.start <= fault.at < s.end), None)
    others = {agent for agent in before if liveness.alive(agent, fault.at)} - hit
    if not hit or there is None or others:
        return None
    for view in room.views:
        fresh = set(view.agents or {}) - hit
        if view.at > fault.at and any(liveness.alive(agent, view.at) for agent in fresh):
            until = view.at
            break
    else:
        until = there.end
    if until >= there.end:  # the person left first, or lost LiveKit: nothing to be seen
        until = there.end
        if until - fault.at < DEADLINE_S:
            return None
    return Recovery(
        room=room.name,
        kind=fault.kind,
        took_s=until - fault.at,
        other_server_online=_other_server_online(fault, until, evidence.faults),
    )


def _other_server_online(fault: Injected, until: float, faults: Iterable[Injected]) -> bool:
    """As far as one can say from outside: nothing else that it needs was hit around then."""
    for other in faults:
        if other is fault:
            continue
        away_s = _LIVEKIT_AWAY_S if other.kind is Kind.LIVEKIT else _AGENT_AWAY_S
        hit_an_agent = other.kind in (Kind.AGENT, Kind.FREEZE_AGENT)
        takes_all_down = other.kind in (Kind.LIVEKIT, Kind.REDIS)
        if (hit_an_agent or takes_all_down) and fault.at - away_s <= other.at <= until:
            return False
    return True


def _agents(
    room: Room, evidence: Evidence, living_only: bool
) -> Iterator[tuple[Span, frozenset[str] | None]]:
    """The room's agents over time: stretches in which they were the same; None: nobody knows."""
    moments = {view.at for view in room.views}
    if living_only:
        moments |= _ends_of_agents(room, evidence.liveness)
    ordered = sorted(moments)
    last: tuple[Span, frozenset[str] | None] | None = None
    for index, at in enumerate(ordered):
        end = ordered[index + 1] if index + 1 < len(ordered) else evidence.ended_at
        listed = _view_at(room, at)
        agents: frozenset[str] | None = None
        if listed is not None:
            agents = frozenset(
                a for a in listed if not living_only or evidence.liveness.alive(a, at)
            )
        several = len(agents or ()) > 1
        if last is not None and (last[1] == agents or (several and len(last[1] or ()) > 1)):
            last = (Span(start=last[0].start, end=end), agents)
            continue
        if last is not None:
            yield last
        last = (Span(start=at, end=end), agents)
    if last is not None:
        yield last


def _deaths(room: Room, liveness: Liveness, *, within: Span) -> list[float]:
    ends = _ends_of_agents(room, liveness)
    return [at for at in ends if within.start <= at < within.end]


def _waited_s(answer: Answer, evidence: Evidence) -> float:
    """How long the client has waited for the server: without the time in which it was held up."""
    asked_at, answered_at = answer.asked_at, answer.asked_at + answer.took_s
    shared = (min(answered_at, lag.end) - max(asked_at, lag.start) for lag in evidence.lags)
    return answer.took_s - sum(max(0.0, seconds) for seconds in shared)


def _late_s(body: Mapping[str, Any]) -> float:
    """How long after its deadline, and what is allowed on top, a dispatch has failed."""
    return float(body["timeline"][-1]["at_ms"] - body["deadline_at_ms"]) / 1000 - LATE_S


def _ends_of_agents(room: Room, liveness: Liveness) -> set[float]:
    seen = {agent for view in room.views for agent in view.agents or {}}
    return {at for agent in seen if (at := liveness.ended_at(agent)) is not None}


def _view_at(room: Room, at: float) -> Mapping[str, int] | None:
    found: Mapping[str, int] | None = None
    for view in room.views:
        if view.at > at:
            break
        found = view.agents
    return found


def _agents_at(room: Room, at: float) -> Mapping[str, int]:
    return _view_at(room, at) or {}


def _gaps(room: Room, evidence: Evidence) -> Iterator[Span]:
    """When the person was in the room without a living agent, while LiveKit could be asked."""
    without = [span for span, agents in _agents(room, evidence, True) if agents == frozenset()]
    for there in room.present:
        for span in without:
            start, end = max(there.start, span.start), min(there.end, span.end)
            if end > start:
                yield Span(start=start, end=end)


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
            return f"it says that {agent} joined, and nobody else does"
        return ""
    if body["state"] not in _EXPLICIT:
        return ""
    reason = body["failure_reason"] or ""
    if not reason:
        return f"{body['state']} without a reason"
    if reason == "nobody_came":
        return "nobody_came, and somebody had met the agent" if _met(room, evidence) else ""
    ended_at = body["timeline"][-1]["at_ms"] / 1000
    causes = CAUSES.get(reason.partition(":")[0], frozenset())
    if not any(
        fault.kind in causes and ended_at - CAUSE_WITHIN_S <= fault.at <= ended_at
        for fault in evidence.faults
    ):
        return f"{body['state']}: {reason}, and nothing was done that leads to that"
    return ""


def _met(room: Room, evidence: Evidence) -> bool:
    """True when the person and an agent were in the room together for long enough to notice."""
    seen = {agent for view in room.views for agent in view.agents or {}}
    for agent in seen:
        since = evidence.liveness.joined_at(agent)
        until = evidence.liveness.ended_at(agent) or evidence.ended_at
        for there in room.present:
            if since and min(there.end, until) - max(there.start, since) > NOTICED_WITHIN_S:
                return True
    return False


def _dispatch_ids(room: Room) -> list[str]:
    return list(dict.fromkeys(a.dispatch_id for a in room.accepted if a.dispatch_id))


def _ending(record: Mapping[str, Any] | None) -> str:
    """How the product says that a dispatch stands."""
    if record is None:
        return "nothing"
    return str(record["body"]["state"]) if record["status"] == 200 else f"HTTP {record['status']}"
