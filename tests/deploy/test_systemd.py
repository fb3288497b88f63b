"""Does systemd understand the units, and does the web do what its unit counts on?

systemd itself is not running where tests run: its own checker reads the units, and what it would
hand to the web (a socket, a place to say that it is ready) a test hands over.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from devstack import PROJECT_ROOT
from tests.conftest import free_port, process
from tests.integration.web.test_web_restarts import environment

from .manifests import SYSTEMD

SYSTEMS_OWN = Path("/usr/lib/systemd/system")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None and not os.environ.get("CI"),
    reason="systemd-analyze is not here (Debian: apt-get install systemd)",
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine's files, with Usher installed as its units say."""
    root = tmp_path / "root"
    shutil.copytree(SYSTEMS_OWN, root / SYSTEMS_OWN.relative_to("/"), symlinks=True)
    installed = root / "opt/usher/current"
    shutil.copytree(PROJECT_ROOT / "deploy", installed / "deploy")
    here = root / "etc/systemd/system"
    here.mkdir(parents=True)
    for path in SYSTEMD.iterdir():
        if path.suffix in (".service", ".socket", ".target"):
            shutil.copy(path, here)
    return root


def verify(root: Path) -> subprocess.CompletedProcess[str]:
    """What systemd says of all units: templates as their first instance."""
    names = [path.name.replace("@.", "@1.") for path in (root / "etc/systemd/system").iterdir()]
    return subprocess.run(
        ["systemd-analyze", f"--root={root}", "--man=no", "verify", *sorted(names)],
        capture_output=True,
        text=True,
        timeout=60,
    )


@needs_systemd
def test_systemd_has_nothing_to_say_against_the_units(root: Path) -> None:
    verified = verify(root)

    assert (verified.returncode, verified.stderr) == (0, "")


@needs_systemd
@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("TimeoutStopSec=", "TimeoutStopSecs=", "'TimeoutStopSecs'"),
        ("deploy/run", "deploy/runs", "is not executable"),
        ("KillMode=mixed", "KillMode=nobody", "Failed to parse"),
    ],
)
def test_a_mistake_in_a_unit_is_found(root: Path, right: str, wrong: str, said: str) -> None:
    path = root / "etc/systemd/system/usher-agent@.service"
    path.write_text(path.read_text().replace(right, wrong))

    assert said in verify(root).stderr


def test_the_web_tells_systemd_that_it_is_ready(redis_url: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        variables = environment(redis_url, free_port())
        command = [f"{name}={value}" for name, value in variables.items()]
        command += [f"NOTIFY_SOCKET={tmp_path / 'notify'}", str(PROJECT_ROOT / "deploy/run"), "web"]

        with process("env", *command, log=tmp_path / "web.log") as web:
            said, ancillary, *_ = systemd.recvmsg(4096, socket.CMSG_SPACE(struct.calcsize("3i")))

    assert said.startswith(b"READY=1")
    [(_, _, credentials)] = ancillary
    # Of nobody else does systemd believe it (NotifyAccess=main).
    assert struct.unpack("3i", credentials)[0] == web.pid
