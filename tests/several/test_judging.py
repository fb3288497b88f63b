"""Does the count notice a session that is lost, doubled or not at rest?"""

from __future__ import annotations

import dataclasses

import pytest

from .callers import Seen, wrong

RIGHT = Seen(state="joined", reason="", agent_identity="a", container="agent-1", agents=("a",))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, ""),
        ({"state": "failed", "reason": "no_capacity", "agents": ()}, ""),
        ({"state": "cancelled", "agents": ()}, ""),
        ({"state": "", "agents": ()}, "no record"),
        ({"state": "queued", "agents": ()}, "not at rest"),
        ({"state": "failed", "agents": ()}, "without a reason"),
        ({"state": "failed", "reason": "no_capacity"}, "failed with an agent"),
        ({"agents": ()}, "lost"),
        ({"agents": ("a", "b")}, "doubled"),
        ({"agents": ("b",)}, "another agent"),
        ({"container": "agent-2"}, "host is dead"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, object], said: str) -> None:
    found = wrong(dataclasses.replace(RIGHT, **changes), alive={"agent-1"})  # type: ignore[arg-type]

    assert said in found
    assert bool(said) == bool(found)
