"""The same campaign with one safeguard taken out must fail: one that cannot fail proves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.running import run_campaign

CONTROLS = Path(__file__).parent / "controls"
# Every session starts within a few seconds, and the faults hit while they are there.
SHAPE = ["--seed", "1", "--rounds", "1", "--settle", "2"]
PLAIN = ["--agents", "PLAIN", "--people", "STAYS"]
FEW = [*PLAIN, "--sessions", "12", "--per-s", "1", "--stay", "5"]


@pytest.mark.control
@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("control", "arguments", "expected"),
    [
        pytest.param(
            "no_sweep",
            [
                *(*PLAIN, "--sessions", "12", "--per-s", "2", "--kills", "2", "--stay", "12"),
                *("--only", "AGENT"),
            ],
            {"lost"},
            id="nobody sweeps",
        ),
        pytest.param(
            "no_fence",
            [
                *(*PLAIN, "--sessions", "12", "--per-s", "2", "--kills", "1", "--stay", "20"),
                *("--only", "BEAT"),
            ],
            # Agents that nobody kills are replaced again and again, and the sessions given up as
            # `agent_lost`: of that there may be only two here, so that it need not take half a
            # minute. Doubled they are not: LiveKit removes what is put out.
            {"unexplained"},
            id="agents do not ask the ledger",
        ),
        pytest.param(
            "celery_defaults",
            [
                *(*PLAIN, "--sessions", "40", "--per-s", "10", "--kills", "4"),
                *("--only", "DISPATCH", "AGENT"),
            ],
            {"lost"},
            id="Celery's messages and settings are all there is",
        ),
        pytest.param(
            "no_losses",
            ["--agents", "RAISES", "--sessions", "8", "--per-s", "1", "--kills", "0"],
            {"lost", "unanswered"},
            id="every end of an agent is its own wish",
        ),
        pytest.param(
            "no_leaving",
            [
                *("--agents", "SESSION", "--people", "RELOADS", "RETURNS"),
                *("--sessions", "10", "--per-s", "1", "--kills", "0"),
            ],
            {"lost", "unanswered"},
            id="an agent that is leaving does not say so",
        ),
        pytest.param(
            "no_sign_of_life",
            [
                *("--agents", "SLOW", "--people", "STAYS"),
                *("--sessions", "8", "--per-s", "1", "--kills", "0"),
            ],
            {"lost", "unanswered", "unexplained"},
            id="a job that starts slowly does not say that it lives",
        ),
        pytest.param(
            "foreign_stay",
            [
                *(*PLAIN, "--sessions", "8", "--per-s", "1", "--kills", "4", "--stay", "20"),
                *("--only", "FOREIGN"),
            ],
            {"doubled"},
            id="other backends' agents stay",
        ),
        pytest.param(
            "one_backlog",
            [*FEW, "--kills", "3", "--only", "FLOOD"],
            {"refused"},
            id="the backlog is one count for all tenants",
        ),
        pytest.param(
            "known_errors",
            [*FEW, "--kills", "8", "--only", "GARBAGE", "--ways", "EMPTY_LIST"],
            {"unhealed"},
            id="what LiveKit's library does not promise ends what meets it",
        ),
        pytest.param(
            "kombus_transport",
            [*FEW, "--kills", "2", "--only", "REFUSES", "--ways", "READONLY"],
            {"died"},
            id="an error of Redis's is an answer",
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
