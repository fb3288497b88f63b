"""What the oracle's rules give."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something that must not be, and where."""

    what: str  # as the docstrings of the rules' modules name it
    room: str  # or the program, or the tenant
    dispatch_id: str
    at: float
    detail: str
