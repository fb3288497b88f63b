"""Would the campaign notice? The same campaign with one safeguard taken out must fail.

A campaign that cannot fail proves nothing.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.running import run_campaign

CONTROLS = Path(__file__).parent / "controls"
# Every session starts within a few seconds, and the faults hit while they are there.
SHAPE = ["--seed", "1", "--rounds", "1", "--settle", "2"]


@pytest.mark.control
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("control", "arguments", "expected"),
    [
        pytest.param(
            "no_sweep",
            ["--sessions", "12", "--per-s", "2", "--kills", "2", "--stay", "12", "--only", "AGENT"],
            {"lost"},
            id="nobody sweeps",
        ),
        pytest.param(
            "no_fence",
            ["--sessions", "12", "--per-s", "2", "--kills", "1", "--stay", "20", "--only", "BEAT"],
            # Agents that nobody kills are replaced again and again, and the sessions given up as
            # `agent_lost`: of that there may be only two here, so that it need not take half a
            # minute. Doubled they are not: LiveKit removes what is put out.
            {"unexplained"},
            id="agents do not ask the ledger",
        ),
        pytest.param(
            "celery_defaults",
            ["--sessions", "40", "--per-s", "10", "--kills", "4", "--only", "DISPATCH", "AGENT"],
            {"lost"},
            id="Celery's messages and settings are all there is",
        ),
    ],
)
def test_without_a_safeguard_the_campaign_fails(
    tmp_path: Path, control: str, arguments: list[str], expected: set[str]
) -> None:
    procfile = str(CONTROLS / f"{control}.Procfile")

    code, figures, output = run_campaign(
        tmp_path, *SHAPE, *arguments, "--procfile", procfile, within_s=280
    )

    assert code == 1, output
    assert any(figures[what] for what in expected), output
