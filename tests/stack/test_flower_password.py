"""Flower is never open by mistake: it does not start without a password."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from devstack import PROJECT_ROOT
from devstack.supervision import read_procfile
from tests.support.stacks import RunningStack


@pytest.mark.parametrize(
    ("basic_auth", "said"),
    [
        (None, "Flower does not start without a password: set FLOWER_BASIC_AUTH=<user>:<password>"),
        ("", "FLOWER_BASIC_AUTH must be <user>:<password>, and neither of them empty"),
        ("usher:", "FLOWER_BASIC_AUTH must be <user>:<password>, and neither of them empty"),
        ("s3cret", "FLOWER_BASIC_AUTH must be <user>:<password>, and neither of them empty"),
        ("a:b,:c", "FLOWER_BASIC_AUTH must be <user>:<password>, and neither of them empty"),
    ],
)
def test_the_procfiles_flower_refuses_to_start_in_one_line(
    basic_auth: str | None, said: str
) -> None:
    environ = {name: value for name, value in os.environ.items() if "FLOWER" not in name}
    environ |= {"REDIS_URL": "redis://127.0.0.1:1/0"}
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ['PATH']}"
    if basic_auth is not None:
        environ["FLOWER_BASIC_AUTH"] = basic_auth
    command = read_procfile(PROJECT_ROOT / "Procfile")["flower"]
    ended = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=PROJECT_ROOT,
        env=environ,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 1
    assert (ended.stdout + ended.stderr).splitlines() == [said], shlex.quote(command)


def test_it_listens_on_loopback_only(stack: RunningStack) -> None:
    (pid, *_) = stack.pids("flower")
    listening = [
        connection.laddr.ip
        for connection in psutil.Process(pid).net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"]
