"""How does a test run a campaign? As a person does: by its command, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from devstack import PROJECT_ROOT


def run_campaign(out: Path, *arguments: str, within_s: float) -> tuple[int, dict[str, Any], str]:
    """Exit code, the report's figures and everything that was printed."""
    report = out / "report.md"
    command = [sys.executable, "-m", "tests.faults.campaign", "--out", str(out)]
    ran = subprocess.run(
        [*command, "--report", str(report), *arguments],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=within_s,
    )
    figures = report.with_suffix(".json")
    assert figures.exists(), ran.stdout
    return ran.returncode, json.loads(figures.read_text()), ran.stdout
