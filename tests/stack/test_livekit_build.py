"""A LiveKit server is built once, and a build that fails says what to do and leaves nothing."""

from pathlib import Path

import pytest

from devstack import StackError
from devstack.go_build import built
from devstack.servers import LIVEKIT

SERVER = f"livekit-server-{LIVEKIT.version}"


@pytest.fixture
def tools_dir(tmp_path: Path) -> Path:
    return tmp_path / "tools"


def environment_with_go(tmp_path: Path, install: str) -> dict[str, str]:
    """A PATH with a `go` that is new enough and runs the shell command `install`."""
    programs = tmp_path / "programs"
    programs.mkdir(exist_ok=True)
    go = programs / "go"
    go.write_text(f'#!/bin/sh\n[ "$1" = version ] && exec echo go version go1.26.0\n{install}\n')
    go.chmod(0o755)
    return {"PATH": f"{programs}:/usr/bin:/bin"}


def test_a_server_is_built_once(tools_dir: Path, tmp_path: Path) -> None:
    builds = environment_with_go(tmp_path, 'echo built > "$GOBIN/server"')

    server = built(LIVEKIT, builds, tools_dir)

    assert server == tools_dir / SERVER
    assert server.read_text() == "built\n"
    fails = environment_with_go(tmp_path, "exit 1")
    assert built(LIVEKIT, fails, tools_dir) == server


def test_a_build_that_fails_says_what_to_do_and_leaves_no_server(
    tools_dir: Path, tmp_path: Path
) -> None:
    fails = environment_with_go(tmp_path, 'echo half > "$GOBIN/server"; echo no proxy; exit 1')

    with pytest.raises(StackError, match="USHER_LIVEKIT_SERVER") as raised:
        built(LIVEKIT, fails, tools_dir)

    log = tools_dir / "livekit-server-build.log"
    assert str(log) in str(raised.value)
    assert log.read_text() == "no proxy\n"
    assert sorted(path.name for path in tools_dir.iterdir()) == [log.name, "lock"]
