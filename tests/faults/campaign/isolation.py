"""What one tenant, one server's answers and one error do to everything else. Pure.

refused: a person of the first tenant was answered 429 or 503, and Redis was neither away nor
refusing to work; or asked for as long as a page waits, and was never accepted.

died: a process has ended that nobody has ended.

unhealed: all faults were over, and a process gave no sign of life, or `/readyz` missed something.

Of the neighbour's own sessions: lost, when the product does not know one that it has accepted, or
does not say how it ended; unexplained, when it says so without a reason. An answer of 500 or above
that is no 503 is unexplained, whoever gets it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .evidence import Answer, Evidence, Exit, Injected, Room
from .findings import Finding
from .liveness import STOPS_WITHIN_S
from .plan import Kind

# For how long after Redis was killed, or worked again, a web may not reach it yet.
REFUSES_S: Final = 8.0
_TOO_MUCH, _AWAY = 429, 503
# A process that was hit may end by itself within this time; one that was stopped takes longer.
_ENDS_WITHIN_S: Final = 5.0
_NEIGHBOUR: Final = "the neighbour"
_OVER: Final = frozenset({"ended", "failed", "cancelled"})
_WITH_A_REASON: Final = frozenset({"failed", "cancelled"})


def find_refused(room: Room, evidence: Evidence) -> Iterator[Finding]:
    """People who were turned away although there was nothing that they had to wait for."""
    for answer in room.answers:
        if answer.status in (_TOO_MUCH, _AWAY) and not _without_redis(answer, evidence):
            yield Finding(
                what="refused",
                room=room.name,
                dispatch_id="",
                at=answer.asked_at,
                detail=f"answered {answer.status}, and Redis worked",
            )
        elif broken := _broken(answer):
            yield Finding(
                what="unexplained",
                room=room.name,
                dispatch_id=answer.dispatch_id,
                at=answer.asked_at,
                detail=broken,
            )
    for at in room.gave_up_at:
        yield Finding(
            what="refused",
            room=room.name,
            dispatch_id="",
            at=at,
            detail="never accepted, for as long as a page waits",
        )


def _without_redis(answer: Answer, evidence: Evidence) -> bool:
    """True when the web may have had no Redis then."""
    answered_at = answer.asked_at + answer.took_s
    return any(
        fault.kind in (Kind.REDIS, Kind.REFUSES)
        and fault.at <= answered_at
        and answer.asked_at <= fault.until + REFUSES_S
        for fault in evidence.faults
    )


def _broken(answer: Answer) -> str:
    return f"answered {answer.status}" if answer.status >= 500 and answer.status != _AWAY else ""


def find_neighbours(evidence: Evidence) -> Iterator[Finding]:
    """What is wrong with the neighbour's own sessions, and answers."""
    accepted: dict[str, float] = {}
    for answer in evidence.neighbour.answers:
        if answer.dispatch_id:
            accepted.setdefault(answer.dispatch_id, answer.asked_at)
        if broken := _broken(answer):
            yield _of_neighbour("unexplained", answer.dispatch_id, answer.asked_at, broken)
    for dispatch_id, at in accepted.items():
        state, reason = evidence.neighbour.records.get(dispatch_id, ("nothing", ""))
        if state not in _OVER:
            detail = f"at the end the product says: {state}"
            yield _of_neighbour("lost", dispatch_id, at, detail)
        elif state in _WITH_A_REASON and not reason:
            yield _of_neighbour("unexplained", dispatch_id, at, f"{state} without a reason")


def _of_neighbour(what: str, dispatch_id: str, at: float, detail: str) -> Finding:
    return Finding(what=what, room=_NEIGHBOUR, dispatch_id=dispatch_id, at=at, detail=detail)


def find_died(evidence: Evidence) -> Iterator[Finding]:
    """Processes that have ended by themselves."""
    for one in evidence.exits:
        ended_by_a_fault = any(_ended_by(fault, one) for fault in evidence.faults)
        if one.at >= evidence.started_at and not ended_by_a_fault:
            yield Finding(
                what="died",
                room=one.program,
                dispatch_id="",
                at=one.at,
                detail=f"ended by itself: {one.how}",
            )


def _ended_by(fault: Injected, one: Exit) -> bool:
    within_s = STOPS_WITHIN_S if fault.kind is Kind.DRAIN else _ENDS_WITHIN_S
    return fault.program == one.program and fault.at <= one.at <= fault.until + within_s


def find_unhealed(evidence: Evidence) -> Iterator[Finding]:
    """What did not work at the end."""
    for what in evidence.missing:
        yield Finding(
            what="unhealed",
            room=what,
            dispatch_id="",
            at=evidence.ended_at,
            detail="does not work, with all faults over",
        )
