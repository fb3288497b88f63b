"""When the product can say nothing: the ledger refuses, or no dispatch worker is there.

Time-outs of the oracle stand still meanwhile. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .evidence import Evidence, Injected, Span
from .plan import Kind

# The programs of which one must be there to end a session in time (the stack of a round has two).
DISPATCH_WORKERS: Final = ("dispatch", "dispatch2")
# A worker that was killed has started again within this time, as a rule.
STARTS_S: Final = 6.0
# A worker that Redis has refused is back within this time, as a rule (Celery asks each second).
_HEARS_AGAIN_S: Final = 2.0


def helpless_s(span: Span, evidence: Evidence) -> float:
    """Seconds of a stretch in which nothing could be said."""
    refusing = [
        Span(start=fault.at, end=fault.until + _HEARS_AGAIN_S)
        for fault in evidence.faults
        if fault.kind is Kind.REFUSES
    ]
    one, other = ([_absence(f) for f in _of(name, evidence)] for name in DISPATCH_WORKERS)
    both_gone = [
        Span(start=max(a.start, b.start), end=min(a.end, b.end)) for a in one for b in other
    ]
    inside = (
        Span(start=max(span.start, each.start), end=min(span.end, each.end))
        for each in [*refusing, *both_gone]
    )
    return _length(each for each in inside if each.lasts_s > 0)


def _of(program: str, evidence: Evidence) -> list[Injected]:
    return [
        fault
        for fault in evidence.faults
        if fault.program == program and fault.kind in (Kind.DISPATCH, Kind.FREEZE_WORKER)
    ]


def _absence(fault: Injected) -> Span:
    """From a kill to the next start, or for as long as it stood still, and a moment to begin."""
    if fault.killed:
        return Span(start=fault.at, end=fault.at + STARTS_S)
    return Span(start=fault.at, end=fault.until + _HEARS_AGAIN_S)


def _length(spans: Iterable[Span]) -> float:
    """How much time they cover together."""
    covered, till = 0.0, float("-inf")
    for span in sorted(spans, key=lambda span: span.start):
        covered += max(0.0, span.end - max(span.start, till))
        till = max(till, span.end)
    return covered
