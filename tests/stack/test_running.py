"""A stack of the real servers and two small processes starts, heals and leaves nothing behind."""

import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from devstack import PROJECT_ROOT
from devstack.ports import LOOPBACK, PORT_VARIABLES
from devstack.processes import processes_of_stack
from tests.support.stacks import RunningStack, running_stack

ENDS_WITHIN_S = 60


@pytest.fixture
def procfile(tmp_path: Path) -> Path:
    """One process that is alone, and one that has a child."""
    path = tmp_path / "Procfile"
    path.write_text("alone: exec sleep 1000\nparent: sleep 1000 & wait\n")
    return path


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def stack(run_dir: Path, procfile: Path) -> Iterator[RunningStack]:
    with running_stack(run_dir, procfile=procfile) as running:
        yield running


def up_environment(run_dir: Path, **environ: str) -> dict[str, str]:
    any_ports = dict.fromkeys(PORT_VARIABLES, "0")
    return {**os.environ, **any_ports, "USHER_RUN_DIR": str(run_dir), **environ}


def run_up(run_dir: Path, procfile: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """`python -m devstack up` that is expected to end by itself."""
    return subprocess.run(
        [sys.executable, "-m", "devstack", "up", "--procfile", str(procfile)],
        cwd=PROJECT_ROOT,
        env=up_environment(run_dir, **environ),
        capture_output=True,
        text=True,
        timeout=150,
    )


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_at = time.monotonic() + ENDS_WITHIN_S
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


def assert_all_end(processes: list[psutil.Process]) -> None:
    assert processes
    _, alive = psutil.wait_procs(processes, timeout=ENDS_WITHIN_S)
    assert alive == []


def test_a_stack_runs_the_procfile_besides_redis_and_livekit(stack: RunningStack) -> None:
    assert {program.state for program in stack.programs().values()} == {"RUNNING"}
    assert set(stack.programs()) == {"redis", "livekit", "alone", "parent"}
    assert "usher:alone" in stack.supervisorctl("status")


def test_the_file_with_the_credentials_is_the_owners_and_ends_with_the_stack(
    run_dir: Path, procfile: Path
) -> None:
    env_file = run_dir / "stack.env"

    with running_stack(run_dir, procfile=procfile) as first:
        assert stat.S_IMODE(env_file.stat().st_mode) == 0o600
    assert not env_file.exists()

    with running_stack(run_dir, procfile=procfile) as second:
        assert second.api_key == first.api_key


def test_a_ctrl_c_leaves_no_process_behind(run_dir: Path, procfile: Path) -> None:
    with running_stack(run_dir, procfile=procfile):
        running = processes_of_stack(run_dir)

    # supervisord, redis, livekit, alone, parent and its child
    assert len(running) == 6
    assert processes_of_stack(run_dir) == []


@pytest.mark.long  # it is waited for
def test_a_process_that_ignores_the_ctrl_c_is_killed(run_dir: Path, tmp_path: Path) -> None:
    deaf = tmp_path / "Procfile"
    deaf.write_text("deaf: trap '' TERM; exec sleep 1000\n")

    with running_stack(run_dir, procfile=deaf):
        pass

    assert processes_of_stack(run_dir) == []


def test_the_agents_program_may_be_in_a_folder_of_the_callers_own(
    run_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "their_program.py").write_text("async def entrypoint(ctx):\n    pass\n")
    procfile = tmp_path / "Procfile"
    procfile.write_text("agent: exec python -m worker_agent\n")
    environ = {
        "PYTHONPATH": os.pathsep.join([*sys.path, str(tmp_path)]),
        "USHER_AGENT_ENTRYPOINT": "their_program:entrypoint",
        "USHER_AGENT_EXECUTOR": "thread",
    }

    # Ready when the agent server answers, which it does with its program imported.
    with running_stack(run_dir, procfile=procfile, environ=environ, ready_within_s=60) as stack:
        assert stack.programs()["agent"].state == "RUNNING"


def test_a_process_that_is_killed_runs_again(stack: RunningStack) -> None:
    [killed] = stack.pids("alone")

    os.kill(killed, signal.SIGKILL)

    wait_until(lambda: stack.pids("alone") not in ([killed], []))


def test_a_port_in_use_is_one_line_and_nothing_runs(run_dir: Path, procfile: Path) -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
        ended = run_up(run_dir, procfile, USHER_LIVEKIT_PORT=str(port))

    assert ended.returncode == 1
    [line] = ended.stderr.splitlines()
    assert f"port {port} is in use" in line
    assert "USHER_LIVEKIT_PORT" in line
    assert processes_of_stack(run_dir) == []


def test_a_second_stack_in_the_same_folder_is_refused_and_the_first_goes_on(
    stack: RunningStack, procfile: Path
) -> None:
    ended = run_up(stack.run_dir, procfile)

    assert ended.returncode == 1
    assert f"already running in {stack.run_dir} as pid {stack.pid}" in ended.stderr
    assert {program.state for program in stack.programs().values()} == {"RUNNING"}


def test_a_stack_that_is_killed_takes_its_processes_along(run_dir: Path, procfile: Path) -> None:
    with running_stack(run_dir, procfile=procfile) as stack:
        running = processes_of_stack(run_dir)
        os.kill(stack.pid, signal.SIGKILL)

    assert_all_end(running)


def test_what_a_killed_run_has_left_is_ended_by_the_next(run_dir: Path, procfile: Path) -> None:
    with running_stack(run_dir, procfile=procfile) as stack:
        running = processes_of_stack(run_dir)
        supervisor_pid = int((run_dir / "supervisord.pid").read_text())
        # Together, as nothing would be left if either had time to see the other die.
        os.kill(stack.pid, signal.SIGSTOP)
        os.kill(supervisor_pid, signal.SIGKILL)
        os.kill(stack.pid, signal.SIGKILL)
    left = [process for process in running if process.pid != supervisor_pid]
    assert all(process.is_running() for process in left)

    with running_stack(run_dir, procfile=procfile):
        assert not any(process.is_running() for process in left)


def test_a_stack_ends_with_the_process_that_started_it(run_dir: Path, procfile: Path) -> None:
    run_all = "import subprocess, sys; subprocess.run(sys.argv[1:])"
    command = [sys.executable, "-m", "devstack", "up", "--with-parent", "--procfile", str(procfile)]
    with subprocess.Popen(
        [sys.executable, "-c", run_all, *command],
        cwd=PROJECT_ROOT,
        env=up_environment(run_dir),
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        assert any(line.startswith("ready ") for line in starter.stdout)
        running = processes_of_stack(run_dir)

        starter.kill()

        assert_all_end(running)
