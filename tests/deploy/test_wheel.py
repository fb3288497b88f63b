"""The wheel, installed in an empty environment, runs its processes from another directory.

Each kind of machine has its extras, and nothing of the others.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack import PROJECT_ROOT
from devstack.supervision import read_procfile
from tests.acceptance.session import wait_for
from tests.conftest import LiveKitServer

from .containers import Containers
from .image import Stage
from .wheels import Machine, built_wheel, can_import, installed, locked, packages

pytestmark = [pytest.mark.package, pytest.mark.timeout(600)]

STARTS_WITHIN_S = 90
MACHINES = {
    "agent": Machine(
        extras="agent",
        processes=("agent",),
        commands=("python -c 'from worker_agent import rtc_session'",),
        lacks=("celery", "kombu", "flask", "flower", "gunicorn"),
        locked="deploy/requirements-agent.txt",
    ),
    "web": Machine(
        extras="web",
        processes=("web",),
        commands=('gunicorn --check-config "web:create_app()"',),
        lacks=("livekit.agents", "flower"),
    ),
    "worker": Machine(
        extras="worker",
        processes=("dispatch", "verify", "beat"),
        commands=("celery -A dispatcher report", "celery -A dispatcher dispatch --help"),
        lacks=("livekit.agents", "flask", "flower", "gunicorn"),
    ),
    "dispatcher": Machine(
        extras="web,worker,flower",
        processes=("flower",),
        commands=("celery -A dispatcher flower --help",),
        lacks=("livekit.agents",),
        locked="deploy/requirements-dispatcher.txt",
    ),
    "all": Machine(
        extras="all",
        processes=tuple(read_procfile(PROJECT_ROOT / "Procfile")),
        commands=("celery -A dispatcher dispatch selftest --help",),
        lacks=(),
        locked="requirements.txt",
    ),
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module", params=list(MACHINES))
def machine(request: pytest.FixtureRequest) -> Machine:
    return MACHINES[request.param]


# Agents have two tests of their own. The first of `MACHINES`, so that it is installed once.
an_agents_machine = pytest.mark.parametrize("machine", ["agent"], indirect=True, scope="module")


@pytest.fixture(scope="module")
def stage(
    wheel: Path, machine: Machine, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stage]:
    """That machine; its folder of some 300 MB is taken away when the next one's turn has come."""
    root = tmp_path_factory.mktemp("machine")
    yield installed(wheel, machine.extras, root)
    shutil.rmtree(root)


@pytest.fixture
def running(
    stage: Stage, tmp_path: Path, redis_url: str, livekit_server: LiveKitServer
) -> Containers:
    """What starts processes there, with an environment of their own."""
    return Containers(stage, tmp_path, redis_url, livekit_server)


def test_a_machine_has_exactly_the_packages_of_its_list(machine: Machine, stage: Stage) -> None:
    if machine.locked is not None:
        assert packages(stage) == locked(machine.locked)
    assert packages(stage).items() <= locked("requirements.txt").items()


def test_a_machine_has_nothing_of_the_other_kinds(machine: Machine, stage: Stage) -> None:
    assert [module for module in machine.lacks if can_import(stage, module)] == []


def test_every_process_of_a_machine_starts_and_works(machine: Machine, running: Containers) -> None:
    for name in machine.processes:
        with running.running(name):
            wait_for(
                f"{name} works",
                lambda name=name: running.probe(name, "startupProbe") or None,
                within_s=STARTS_WITHIN_S,
            )


def test_the_commands_of_a_machine_find_their_programs(
    machine: Machine, running: Containers
) -> None:
    for command in machine.commands:
        ran = subprocess.run(
            ["/bin/sh", "-c", command],
            cwd=running.image.path("."),
            env=running.own(machine.processes[0]),
            capture_output=True,
            text=True,
            timeout=STARTS_WITHIN_S,
        )
        assert ran.returncode == 0, ran.stdout + ran.stderr


@an_agents_machine
@pytest.mark.usefixtures("machine")
def test_a_wrong_setting_ends_an_agent_server_with_one_clear_line(running: Containers) -> None:
    del running.environ["REDIS_URL"]

    agent = running.popen("agent")

    assert agent.wait(timeout=STARTS_WITHIN_S) == 2
    [line] = running.log("agent").splitlines()
    assert "REDIS_URL" in line


@an_agents_machine
@pytest.mark.usefixtures("machine")
def test_the_example_agent_registers(running: Containers, tmp_path: Path) -> None:
    """With its two lines, in an environment that has `usher[agent]` and nothing else."""
    shutil.copy(PROJECT_ROOT / "examples/agent.py", tmp_path / "my_agent.py")
    log = tmp_path / "example.log"
    with log.open("wb") as output:
        example = subprocess.Popen(
            [str(running.image.path("venv/bin/python")), "my_agent.py", "start"],
            cwd=tmp_path,
            env={**running.own("agent"), "PORT": str(running.ports["agent"])},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_for(
            "registered",
            lambda: "registered worker" in log.read_text() or None,
            within_s=STARTS_WITHIN_S,
        )
    finally:
        os.killpg(example.pid, signal.SIGKILL)
        example.wait()
