"""The self-test's results, as a table, as JSON and as JUnit. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any
from xml.etree import ElementTree  # nosec B405  # it only writes

Progress = Callable[[str], None]
Done = tuple[str, dict[str, Any]]  # what there is to say of a check, for people and for programs


class Outcome(StrEnum):
    """How a check went."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One check; `numbers` are for programs, `message` is for people."""

    name: str
    outcome: Outcome
    message: str
    took_s: float = 0.0
    numbers: dict[str, Any] = field(default_factory=dict)


def passed(results: Sequence[Result]) -> bool:
    """True when nothing failed, and something was tested at all."""
    outcomes = [result.outcome for result in results]
    return Outcome.OK in outcomes and Outcome.FAILED not in outcomes


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, 95th percentile and greatest of some values; empty with none."""
    if not values:
        return {}
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]

    return {"p50": at(0.5), "p95": at(0.95), "max": ordered[-1]}


def as_shape(url: str, results: Sequence[Result], *, took_s: float) -> dict[str, Any]:
    """What --json prints."""
    return {
        "url": url,
        "passed": passed(results),
        "took_s": round(took_s, 3),
        "checks": [asdict(result) for result in results],
    }


def _for_xml(text: str) -> str:
    # XML has no place for control characters, not even escaped.
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def junit(url: str, results: Sequence[Result], *, took_s: float) -> str:
    """A JUnit file for a pipeline."""
    suite = ElementTree.Element(
        "testsuite",
        name="usher selftest",
        tests=str(len(results)),
        failures=str(sum(r.outcome is Outcome.FAILED for r in results)),
        skipped=str(sum(r.outcome is Outcome.SKIPPED for r in results)),
        errors="0",
        time=f"{took_s:.3f}",
    )
    for result in results:
        case = ElementTree.SubElement(
            suite,
            "testcase",
            classname="usher.selftest",
            name=result.name,
            time=f"{result.took_s:.3f}",
        )
        message = _for_xml(result.message)
        if result.outcome is Outcome.FAILED:
            ElementTree.SubElement(case, "failure", message=message)
        elif result.outcome is Outcome.SKIPPED:
            ElementTree.SubElement(case, "skipped", message=message)
        else:
            ElementTree.SubElement(case, "system-out").text = message
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"
