"""Has what is installed from this folder all that it needs, and does Celery find its commands?"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import entry_points
from pathlib import Path

from devstack import PROJECT_ROOT

PACKAGES = ("dispatcher", "web", "worker_agent")
MODULES = ("celeryconfig.py", "flowerconfig.py")


def test_everything_that_is_read_at_run_time_is_in_the_package(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()  # a copy: a build leaves files beside its source
    for name in (*MODULES, "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT_ROOT / name, source)
    ignored = shutil.ignore_patterns("__pycache__")
    for package in PACKAGES:
        shutil.copytree(PROJECT_ROOT / package, source / package, ignore=ignored)

    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-build-isolation", "--no-index"]
    built = subprocess.run(
        [*pip, *offline, "--wheel-dir", str(tmp_path), "."],
        cwd=source,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        timeout=100,
    )

    assert built.returncode == 0, built.stderr
    [wheel] = tmp_path.glob("*.whl")
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        str(path.relative_to(PROJECT_ROOT))
        for package in PACKAGES
        for path in (PROJECT_ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert packed == wanted | set(MODULES)


def test_celery_finds_the_commands() -> None:
    [found] = entry_points(group="celery.commands", name="dispatch")

    assert found.value == "dispatcher.cli:dispatch"
