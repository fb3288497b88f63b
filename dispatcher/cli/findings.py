"""A finding of `doctor`, with its severity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """The severity of a finding."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of `doctor`'s output; `advice` is empty where nothing is to be done."""

    name: str
    status: Status
    message: str
    advice: str = ""


def ok(name: str, message: str) -> Finding:
    """Make a finding for which nothing is to be done."""
    return Finding(name=name, status=Status.OK, message=message)


def warn(name: str, message: str, advice: str) -> Finding:
    """Make a finding about something that works now and may soon fail."""
    return Finding(name=name, status=Status.WARN, message=message, advice=advice)


def fail(name: str, message: str, advice: str) -> Finding:
    """Make a finding about something that harms sessions."""
    return Finding(name=name, status=Status.FAIL, message=message, advice=advice)


def skipped(name: str, message: str) -> Finding:
    """Make a finding about something that could not be checked."""
    return Finding(name=name, status=Status.SKIPPED, message=message)


def verdict(findings: Iterable[Finding]) -> Status:
    """Return the worst status of the findings."""
    seen = {finding.status for finding in findings}
    for status in (Status.FAIL, Status.WARN):
        if status in seen:
            return status
    return Status.OK
