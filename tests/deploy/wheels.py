"""Usher as a wheel, installed in an empty virtual environment: what a machine of one kind has."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from devstack import PROJECT_ROOT

from .image import INSTALLED_AT, Stage, build_context, pip_environment

INSTALLS_WITHIN_S = 500
# What a new virtual environment has by itself.
_OF_THE_ENVIRONMENT = {"pip", "setuptools", "usher"}


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One kind of machine: its extras, and what it may do with them.

    `processes` and `commands` are those of the Procfile and of a person that run there; `locked` is
    the list that a deployment installs; `lacks` are modules of the other kinds.
    """

    extras: str
    processes: tuple[str, ...]
    commands: tuple[str, ...]
    lacks: tuple[str, ...]
    locked: str | None = None


def locked(name: str) -> dict[str, str]:
    """Version by package of a requirements file, as far as it is for this Python."""
    lines = re.findall(r"^[a-z0-9].*?(?= \\$)", (PROJECT_ROOT / name).read_text(), re.MULTILINE)
    wanted = [Requirement(line) for line in lines]
    return {
        each.name: str(each.specifier).removeprefix("==")
        for each in wanted
        if each.marker is None or each.marker.evaluate()
    }


def built_wheel(directory: Path) -> Path:
    """The wheel, built in `directory` from what a release has, as `pip install .` builds it."""
    source = directory / "source"
    source.mkdir()  # a copy: a build leaves files beside its source
    build_context(source)
    _run([sys.executable, "-m", "pip", "wheel", "--no-deps", "-w", str(directory), str(source)])
    [wheel] = directory.glob("usher-*.whl")
    return wheel


def installed(wheel: Path, extras: str, root: Path) -> Stage:
    """A folder that stands for a machine's `/`, with `wheel[extras]` and its packages.

    pip finds out what is needed, as it does for every installation. It is only told the versions,
    so that a release of another project does not change what is tested.
    """
    stage = Stage(
        root=root,
        workdir=INSTALLED_AT,
        environ={"PATH": f"{INSTALLED_AT}/venv/bin:{os.defpath}"},
        entrypoint=[f"{INSTALLED_AT}/deploy/run"],
    )
    here = stage.path(".")
    (here / "deploy").mkdir(parents=True)
    for name in ("Procfile", "deploy/run", "deploy/alive"):
        shutil.copy(PROJECT_ROOT / name, here / name)
    for name in ("celeryconfig", "flowerconfig"):  # another program's, in the current folder
        (here / f"{name}.py").write_text("raise SystemExit('not the one of the package')\n")
    pins = here / "pins.txt"
    pins.write_text("".join(f"{name}=={at}\n" for name, at in locked("requirements.txt").items()))
    _run([sys.executable, "-m", "venv", str(here / "venv")])
    usher = f"usher[{extras}] @ {wheel.as_uri()}"
    python = here / "venv/bin/python"
    _run([str(python), "-m", "pip", "install", "--no-compile", "--constraint", str(pins), usher])
    return stage


def packages(stage: Stage) -> dict[str, str]:
    """Version by package of what is installed there, but for Usher and pip itself."""
    listed = _run([str(stage.path("venv/bin/python")), "-m", "pip", "list", "--format", "json"])
    found = {_normal(each["name"]): each["version"] for each in json.loads(listed)}
    return {name: version for name, version in found.items() if name not in _OF_THE_ENVIRONMENT}


def can_import(stage: Stage, module: str) -> bool:
    """Whether a program that runs there could import that module."""
    code = f"import importlib.util as u, sys; sys.exit(u.find_spec({module!r}) is None)"
    command = [str(stage.path("venv/bin/python")), "-c", code]
    return subprocess.run(command, cwd=stage.path("."), timeout=60).returncode == 0


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _run(command: list[str]) -> str:
    own = {"PATH": os.defpath, "HOME": os.environ.get("HOME", "/"), "PYTHONWARNINGS": "ignore"}
    ran = subprocess.run(
        command,
        cwd="/",
        env={**pip_environment(), **own, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
        capture_output=True,
        text=True,
        timeout=INSTALLS_WITHIN_S,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout
