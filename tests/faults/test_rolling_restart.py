"""Is an upgrade without a session lost or doubled, and without a request refused?"""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.stacks import RunningStack, running_stack

from .campaign.evidence import Evidence
from .campaign.oracle import judge
from .rolling import (
    AGENTS,
    JOIN_LOG,
    Restarts,
    environment,
    identities,
    live_when_stopped,
    upgrade,
    wait_until_all_work,
    write_procfile,
)

pytestmark = pytest.mark.timeout(240)


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[RunningStack]:
    procfile = write_procfile(tmp_path / "Procfile")
    with running_stack(
        tmp_path / "run", environ=environment(tmp_path), procfile=procfile
    ) as running:
        wait_until_all_work(running)
        yield running


def tell(evidence: Evidence, restarts: Restarts) -> None:
    """The figures of one upgrade, for whoever reads the test's output."""
    result = judge(evidence)
    stops = ", ".join(f"{name} {took_s:.1f}" for name, took_s in restarts.stopped_s.items())
    live = [live_when_stopped(evidence, server) for server in restarts.drained]
    print(
        f"{result.sessions} sessions in {result.lasted_s:.0f} s: {result.endings}, answers "
        f"{result.answers}, slowest {max(result.answer_s):.3f} s; time to join: median "
        f"{statistics.median(result.joins_s):.2f} s, longest {max(result.joins_s):.2f} s; "
        f"live when their agent server was told to stop: {live}; stops (s): {stops}"
    )


def assert_nobody_noticed(evidence: Evidence, restarts: Restarts) -> None:
    """Counted by the clients, by LiveKit's participant lists and by the agents' own log."""
    result = judge(evidence)
    assert result.findings == ()
    assert result.answers == {"200": result.sessions}
    assert result.endings == {"ended": result.sessions}
    assert {room: len(agents) for room, agents in identities(evidence).items()} == dict.fromkeys(
        evidence.rooms, 1
    )
    # Else nothing was shown.
    assert all(live_when_stopped(evidence, server) for server in restarts.drained)


@pytest.mark.deployment
def test_an_upgrade_of_everything_loses_doubles_and_refuses_nothing(
    stack: RunningStack, tmp_path: Path
) -> None:
    restarts = Restarts(stack, tmp_path / JOIN_LOG)

    evidence = asyncio.run(upgrade(stack, tmp_path, lambda: restarts.all(in_turn=False)))

    tell(evidence, restarts)
    assert len(restarts.stopped_s) == 10
    assert_nobody_noticed(evidence, restarts)


@pytest.mark.long
def test_nor_does_a_slow_one_with_long_sessions(stack: RunningStack, tmp_path: Path) -> None:
    restarts = Restarts(stack, tmp_path / JOIN_LOG)

    evidence = asyncio.run(
        upgrade(stack, tmp_path, lambda: restarts.all(in_turn=True), stays_s=(8.0, 20.0))
    )

    tell(evidence, restarts)
    assert_nobody_noticed(evidence, restarts)


@pytest.mark.control
def test_agent_servers_that_are_killed_instead_are_noticed(
    stack: RunningStack, tmp_path: Path
) -> None:
    restarts = Restarts(stack, tmp_path / JOIN_LOG, kill=True)

    async def kill() -> None:
        await asyncio.to_thread(restarts.programs, *AGENTS)

    evidence = asyncio.run(upgrade(stack, tmp_path, kill))

    tell(evidence, restarts)
    assert max(len(agents) for agents in identities(evidence).values()) > 1
    with pytest.raises(AssertionError):
        assert_nobody_noticed(evidence, restarts)
