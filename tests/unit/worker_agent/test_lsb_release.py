"""`lsb_release` is not run for a join, and answers whoever else asks for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc

from tests.support.values import run_python
from worker_agent.livekit_workarounds import lsb_release
from worker_agent.livekit_workarounds.room_options import connecting, spare

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux's C library")

PROGRAMS = Path(lsb_release.__file__).with_name("programs")

# Connects to where nobody is, in several tries; before each the library asks for the system's name.
_CONNECT = """
import asyncio, os, sys
from livekit import rtc
from worker_agent.livekit_workarounds.room_options import spare

async def main():
    room = rtc.Room()
    if sys.argv[1:] == ["sparingly"]:
        spare(room)
    try:
        await room.connect("ws://127.0.0.1:1", "no-token")
    except rtc.ConnectError:
        pass
    os._exit(0)

asyncio.run(main())
"""


@pytest.fixture(autouse=True)
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an `lsb_release`; the file that it leaves a line in each time."""
    own, ran = tmp_path / "lsb_release", tmp_path / "ran"
    own.write_text(f'#!/bin/sh\necho "$*" >> {ran}\necho "House $*"\n')
    own.chmod(0o755)
    ran.touch()
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return ran


def test_a_join_runs_none(ran: Path) -> None:
    run_python(_CONNECT, "sparingly")
    assert ran.read_text() == ""


def test_the_library_would_run_it(ran: Path) -> None:
    """Or it has stopped asking, and ours can go."""
    run_python(_CONNECT)
    assert ran.read_text().splitlines().count("-a") > 2


def _inherited() -> list[str]:
    return subprocess.run(["env"], capture_output=True, text=True).stdout.splitlines()


class _Room:
    """Starts a subprocess before, while and after it connects, as another job's code may."""

    def __init__(self) -> None:
        self.saw: list[str] = []

    async def connect(self, url: str, token: str, options: rtc.RoomOptions) -> None:
        self.saw = _inherited()
        with connecting.one():  # another room's
            pass
        assert str(PROGRAMS) in os.fsdecode(_c_path(_inherited()))
        raise rtc.ConnectError("nobody there")


def _c_path(lines: list[str]) -> str:
    return next(line for line in lines if line.startswith("PATH="))


async def test_subprocesses_see_nothing_of_it_but_while_a_room_connects() -> None:
    room: Any = _Room()
    before, environ = _inherited(), dict(os.environ)
    spare(room)

    with pytest.raises(rtc.ConnectError):
        await room.connect("ws://x", "token")

    assert _inherited() == before
    assert dict(os.environ) == environ
    assert _c_path(room.saw) == f"PATH={PROGRAMS}{os.pathsep}{os.environ['PATH']}"
    assert {line for line in room.saw if not line.startswith("PATH=")} == {
        line for line in before if not line.startswith("PATH=")
    }


@pytest.mark.parametrize(
    "command",
    [
        ["lsb_release", "-a"],
        ["sh", "-c", "lsb_release -a"],
        ["bash", "-c", "lsb_release -a"],
        ["env", "lsb_release", "-a"],
    ],
    ids=" ".join,
)
def test_who_asks_meanwhile_is_answered_by_the_machine_s_own(command: list[str]) -> None:
    with connecting.one():
        assert subprocess.run(command, capture_output=True, text=True).stdout == "House -a\n"


def test_a_path_that_the_program_sets_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    with connecting.one():
        monkeypatch.setenv("PATH", "/bin:/usr/bin")
    assert _c_path(_inherited()) == "PATH=/bin:/usr/bin"


def test_where_there_is_none_nothing_is_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "env").symlink_to("/usr/bin/env")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    with connecting.one():
        assert _c_path(_inherited()) == f"PATH={tmp_path / 'bin'}"
