"""Which counters does an agent server keep, and what are they called?

They live in Redis, one hash per client, container and agent name, so that they add up over agent
servers and job processes and outlive both.
"""

from __future__ import annotations

from collections.abc import Mapping


def accepted(reason: str) -> Mapping[str, int]:
    """Increments for a job that was accepted, and why."""
    return {"requests": 1, "accepts": 1, f"accepts:{reason}": 1}


def rejected(reason: str) -> Mapping[str, int]:
    """Increments for a job that was rejected, and why."""
    return {"requests": 1, "rejects": 1, f"rejects:{reason}": 1}


JOINED: Mapping[str, int] = {"joins": 1}
LEFT: Mapping[str, int] = {"leaves": 1}
ASSIGNMENT_TIMED_OUT: Mapping[str, int] = {"assignment_timeouts": 1}
ADOPTED: Mapping[str, int] = {"adoptions": 1}
