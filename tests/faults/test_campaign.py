"""Every accepted session is served by exactly one agent while processes are killed, LiveKit and
Redis answer wrongly, and a neighbour asks for too much: the short form.

The long one is `make campaign`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.campaign.plan import Behaviour, Kind, Person
from tests.faults.running import run_campaign

SESSIONS, KILLS = 80, 10


@pytest.mark.deployment
@pytest.mark.timeout(300)
def test_whatever_dies_every_accepted_session_gets_exactly_one_agent(tmp_path: Path) -> None:
    arguments = ["--seed", "5", "--rounds", "1", "--per-s", "1.3", "--stay", "5"]
    arguments += ["--sessions", str(SESSIONS), "--kills", str(KILLS)]

    code, figures, output = run_campaign(tmp_path, *arguments, within_s=280)

    assert code == 0, output
    # Where nobody is in a session just then there is no job whose process could be killed.
    assert KILLS - 1 <= figures["kills"] <= KILLS
    assert figures["sessions"] == figures["accepted"] == SESSIONS
    assert len(figures["faults"]) >= KILLS - 1  # each kind but the freezes of agents
    assert figures["refusals_of_redis"] == 1
    assert figures["answers_spoiled"] > 0
    assert {Kind.FLOOD, Kind.REDISPATCHES, Kind.OVERSIZE} <= set(figures["faults"])
    assert figures["neighbours_sessions"] > 0
    assert set(figures["behaviours"]) == set(Behaviour)
    assert set(figures["people"]) == set(Person)
    assert figures["words_answered"] > SESSIONS
    assert sum(figures["returns_s"][gap]["all"]["count"] for gap in figures["returns_s"]) > 0
