"""Does Prometheus itself take the alert rules, do they fire when they should, and /metrics?

`make monitoring` builds promtool and runs these; without it they are left out, as in CI, where
building it would take longer than the rest of the setting up. tests/unit/test_monitoring.py looks
at the same things with less.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import httpx
import pytest

from devstack import PROJECT_ROOT
from tests.support.promtool import found_promtool
from tests.support.stacks import RunningStack

FOLDER = PROJECT_ROOT / "monitoring"


@pytest.fixture(scope="module")
def promtool() -> Path:
    found = found_promtool(os.environ)
    if found is None:
        pytest.skip("no promtool here: make monitoring builds one")
    return found


def said(promtool: Path, *arguments: str, given: str | None = None) -> str:
    """What promtool prints; it must find nothing wrong."""
    ended = subprocess.run(
        [str(promtool), *arguments],
        cwd=FOLDER,
        input=given,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_the_rules_are_ones(promtool: Path) -> None:
    assert "SUCCESS" in said(promtool, "check", "rules", "--lint-fatal", "alerts.yml")


def test_in_each_situation_those_alerts_fire_that_should_and_no_others(promtool: Path) -> None:
    assert "SUCCESS" in said(promtool, "test", "rules", "alerts_test.yml")


def test_the_example_of_a_scrape_is_one(promtool: Path) -> None:
    assert "SUCCESS" in said(promtool, "check", "config", "--syntax-only", "prometheus.yml")


def test_prometheus_has_nothing_to_say_against_our_metrics(
    promtool: Path, stack: RunningStack
) -> None:
    scraped = httpx.get(f"{stack.web_url}/metrics", timeout=10, trust_env=False)
    assert scraped.status_code == 200
    assert said(promtool, "check", "metrics", given=scraped.text) == ""
