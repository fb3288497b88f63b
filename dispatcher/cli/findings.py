"""A finding of `doctor`, with its severity."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """How much a finding matters."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    SKIPPED = "skipped"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the doctor's; `advice` is empty where nothing is to be done."""

    name: str
    status: Status
    message: str
    advice: str = ""


def ok(name: str, message: str) -> Finding:
    """Nothing is to be done."""
    return Finding(name=name, status=Status.OK, message=message)


def warn(name: str, message: str, advice: str) -> Finding:
    """It works, and may not for long."""
    return Finding(name=name, status=Status.WARN, message=message, advice=advice)


def fail(name: str, message: str, advice: str) -> Finding:
    """Sessions suffer."""
    return Finding(name=name, status=Status.FAIL, message=message, advice=advice)


def skipped(name: str, message: str) -> Finding:
    """It could not be asked."""
    return Finding(name=name, status=Status.SKIPPED, message=message)


def verdict(findings: Iterable[Finding]) -> Status:
    """The worst of them."""
    seen = {finding.status for finding in findings}
    for status in (Status.FAIL, Status.WARN):
        if status in seen:
            return status
    return Status.OK
