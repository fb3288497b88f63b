"""The self-test's results, and their JUnit file. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any
from xml.etree import ElementTree  # nosec B405  # it only writes

from dispatcher.errors import UsherError

Progress = Callable[[str], None]
Done = tuple[str, dict[str, Any]]  # a check's message for people, and its numbers for programs


class Failed(UsherError):
    """A check failed; the message says how."""


class Skipped(UsherError):
    """A check could not be made; the message says why."""


class Outcome(StrEnum):
    """The outcome of a check."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Result:
    """The result of one check; `numbers` are for programs, `message` is for people."""

    name: str
    outcome: Outcome
    message: str
    took_s: float = 0.0
    numbers: dict[str, Any] = field(default_factory=dict)


def passed(results: Sequence[Result]) -> bool:
    """Return whether no check failed and at least one passed."""
    outcomes = [result.outcome for result in results]
    return Outcome.OK in outcomes and Outcome.FAILED not in outcomes


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return median, 95th percentile and maximum of the values; empty if there are none."""
    if not values:
        return {}
    ordered = sorted(values)

    def at(share: float) -> float:
        return ordered[min(len(ordered) - 1, round(share * (len(ordered) - 1)))]

    return {"p50": at(0.5), "p95": at(0.95), "max": ordered[-1]}


def _for_xml(text: str) -> str:
    # XML allows no control characters, not even escaped.
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)


def junit(results: Sequence[Result], *, took_s: float) -> str:
    """Return a JUnit file for a CI pipeline."""
    outcomes = Counter(result.outcome for result in results)
    suite = ElementTree.Element(
        "testsuite",
        name="usher selftest",
        tests=str(len(results)),
        failures=str(outcomes[Outcome.FAILED]),
        skipped=str(outcomes[Outcome.SKIPPED]),
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
