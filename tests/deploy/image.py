"""How is the image built where there is no container engine?

The Containerfile's own steps are carried out in a folder: only what .dockerignore lets through is
there to be copied, and what runs is what the last stage has copied.
"""

from __future__ import annotations

import fnmatch
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from devstack import PROJECT_ROOT

from .manifests import CONTAINER

INSTALLED_AT = "/opt/usher"


def ignored(rules: list[str], path: str) -> bool:
    """As .dockerignore is read: the last rule that fits a path, or a folder above it, decides."""
    result = False
    for rule in rules:
        pattern, keeps = rule.removeprefix("!"), rule.startswith("!")
        parts = Path(path).parts
        above = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        if pattern.startswith("**/"):
            fits = any(fnmatch.fnmatch(part, pattern[3:]) for part in parts)
        else:
            fits = any(fnmatch.fnmatchcase(each, pattern) for each in above)
        if fits:
            result = not keeps
    return result


def build_context(target: Path) -> None:
    """What a build would be sent."""
    lines = (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    # What git does not know is not ours: a .venv, what tests have left.
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in listed:
        if not ignored(rules, name) and (PROJECT_ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(PROJECT_ROOT / name, target / name)


@dataclass(kw_only=True)
class Stage:
    """A stage of the Containerfile while it is carried out, in a folder that stands for `/`."""

    root: Path
    workdir: str = "/"
    environ: dict[str, str] = field(default_factory=dict)
    entrypoint: list[str] = field(default_factory=list)

    def path(self, name: str) -> Path:
        """Where a path of the image is."""
        return self.root / os.path.join(self.workdir, name).lstrip("/")


class Builder:
    """Carries out the instructions that our Containerfile uses, and fails at any other."""

    def __init__(
        self, context: Path, directory: Path, *, install: bool, arguments: Mapping[str, str]
    ) -> None:
        self._context = context
        self._directory = directory
        self._install = install
        self._arguments = dict(arguments)
        self._stages: dict[str, Stage] = {}

    def build(self) -> Stage:
        """The last stage."""
        stage = Stage(root=self._directory)
        for instruction, rest in self._instructions():
            match instruction:
                case "ARG":
                    name, _, default = rest.partition("=")
                    self._arguments.setdefault(name, default)
                case "USER":
                    continue
                case "FROM":
                    name = rest.partition(" AS ")[2] or "last"
                    stage = Stage(root=self._directory / name)
                    stage.root.mkdir()
                    self._stages[name] = stage
                case "WORKDIR":
                    stage.workdir = rest
                    stage.path(".").mkdir(parents=True, exist_ok=True)
                case "ENV":
                    stage.environ |= dict(pair.split("=", 1) for pair in shlex.split(rest))
                case "COPY":
                    self._copy(stage, rest.split())
                case "RUN":
                    self._run(stage, shlex.split(rest))
                case "ENTRYPOINT":
                    stage.entrypoint = json.loads(rest)
                case _:
                    raise AssertionError(f"this test does not know {instruction}")
        self._settle(stage)
        return stage

    def _instructions(self) -> Iterator[tuple[str, str]]:
        """Each one and the rest of its line, with what `ARG` and `--build-arg` say put in."""
        for line in (CONTAINER / "Containerfile").read_text().splitlines():
            if not line or line.startswith("#"):
                continue
            instruction, _, rest = line.partition(" ")
            for name, value in self._arguments.items():
                rest = rest.replace(f"${{{name}}}", value)
            yield instruction, rest

    def _settle(self, stage: Stage) -> None:
        """Have the programs of the last stage be that one's; in an image both have one path."""
        old, new = str(self._stages["build"].root), str(stage.root)
        for program in stage.path("venv/bin").iterdir():
            if not program.is_symlink() and program.read_bytes().startswith(b"#!"):
                program.write_text(program.read_text().replace(old, new))
        shutil.rmtree(old)

    def _copy(self, stage: Stage, words: list[str]) -> None:
        source_root = self._context
        if words[0].startswith("--from="):
            source_root = self._stages[words.pop(0).removeprefix("--from=")].root
        *sources, target = words
        for source in sources:
            path = source_root / source.lstrip("/")
            into = stage.path(target)
            if path.is_file() and not target.endswith("/"):  # the file's new name
                shutil.copy(path, into)
                continue
            if path.is_dir():  # its contents, as COPY has it
                shutil.copytree(path, into, symlinks=True, dirs_exist_ok=True)
            else:
                into.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, into)

    def _run(self, stage: Stage, words: list[str]) -> None:
        if words[0] == "useradd":
            return
        if "--require-hashes" in words and not self._install:
            # The test's own packages in their place, but for Usher.
            packages = next(Path(each) for each in sys.path if each.endswith("site-packages"))
            [own] = stage.path("venv").glob("lib/python*/site-packages")
            for older in own.glob("setuptools*"):  # Python 3.11 brings one of its own
                shutil.rmtree(older)
            (own / "packages.pth").write_text(f"{packages}\n")
            for name in ("celery", "gunicorn"):
                program = stage.path(f"venv/bin/{name}")
                shutil.copy(Path(sys.executable).with_name(name), program)
                text = program.read_text().replace(
                    sys.executable, str(stage.path("venv/bin/python"))
                )
                program.write_text(text)
            return
        if "--no-deps" in words and not self._install:
            words.append("--ignore-installed")  # the test's own Usher is none of its business
        words = [sys.executable if word == "python" else word for word in words]
        ran = subprocess.run(
            words,
            cwd=stage.path("."),
            env={**pip_environment(), "HOME": str(self._directory), "PATH": os.defpath},
            capture_output=True,
            text=True,
            timeout=280,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


def pip_environment() -> dict[str, str]:
    """Where packages come from on this machine."""
    return {name: value for name, value in os.environ.items() if name.startswith("PIP_")}


@contextmanager
def built(directory: Path, *, install: bool, **arguments: str) -> Iterator[Stage]:
    """The image, built with those `--build-arg`s; its folder is taken away at the end."""
    context, image = directory / "context", directory / "image"
    context.mkdir()
    image.mkdir()
    try:
        build_context(context)
        yield Builder(context, image, install=install, arguments=arguments).build()
    finally:
        shutil.rmtree(context)
        shutil.rmtree(image)
