"""A whole stack of a test's own, in a process of its own."""

import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from devstack import PROJECT_ROOT
from devstack.ports import PORT_VARIABLES
from devstack.processes import end_processes_of_stack
from devstack.supervision import Program, list_programs

_STOPS_WITHIN_S = 90


@dataclass(frozen=True, kw_only=True)
class RunningStack:
    """A running stack, reached as a client reaches it.

    A failed test prints it, so its secrets are left out of its repr.
    """

    run_dir: Path
    pid: int
    web_url: str
    api_key: str = field(repr=False)
    usher_api_key_sha256: str
    publishable_key: str = field(repr=False)
    livekit_url: str
    livekit_api_key: str
    livekit_api_secret: str = field(repr=False)
    redis_url: str = field(repr=False)
    flower_url: str
    flower_user: str
    flower_password: str = field(repr=False)
    dashboard_url: str
    operator_user: str
    operator_password: str = field(repr=False)
    agent_url: str
    usher_client_id: str

    def programs(self) -> dict[str, Program]:
        """Return supervisord's programs, by their names in the Procfile."""
        listed = list_programs(self.run_dir / "supervisor.sock")
        return {program.name: program for program in listed}

    def pids(self, name: str) -> list[int]:
        """Return the pids of the program, first, and its descendants; none while it is down."""
        programs = self.programs()
        with suppress(psutil.NoSuchProcess):
            if programs and (pid := programs[name].pid):
                return [pid, *(p.pid for p in psutil.Process(pid).children(recursive=True))]
        return []

    def supervisorctl(self, *arguments: str) -> str:
        """Run `supervisorctl` (`restart usher:web`, `stop servers:redis`); return its output."""
        command = [sys.executable, "-m", "supervisor.supervisorctl", "-c"]
        answered = subprocess.run(
            [*command, str(self.run_dir / "supervisord.conf"), *arguments],
            capture_output=True,
            text=True,
            timeout=60,
        )
        return answered.stdout + answered.stderr

    def log(self, name: str) -> str:
        """Return what the process of that name has logged so far."""
        return (self.run_dir / "log" / f"{name}.log").read_text(errors="replace")


@contextmanager
def running_stack(
    run_dir: Path,
    *,
    environ: Mapping[str, str] | None = None,
    procfile: Path = PROJECT_ROOT / "Procfile",
    ready_within_s: float = 170,
) -> Iterator[RunningStack]:
    """Run a whole stack in `run_dir` on free ports; stop it at the end as by a Ctrl-C.

    `environ` adds to and overrides the caller's environment; without `USHER_AGENT_DRAIN_S` in it,
    sessions keep the agent server from stopping for 1 s.

    Raises:
        AssertionError: it is not ready in time, or does not stop; with what it has printed.
    """
    # A short drain: no test waits for the end of sessions that it has left.
    own = {**dict.fromkeys(PORT_VARIABLES, "0"), "USHER_AGENT_DRAIN_S": "1"}
    process = subprocess.Popen(
        [sys.executable, "-m", "devstack", "up", "--with-parent", "--procfile", str(procfile)],
        cwd=PROJECT_ROOT,
        env={**os.environ, **own, "USHER_RUN_DIR": str(run_dir), **(environ or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    output = _Output(process)
    try:
        assert output.said_ready(within_s=ready_within_s), f"stack not ready:\n{output.text}"
        yield _read_env_file(run_dir.resolve(), process.pid)
    finally:
        stopped = _stop(process, run_dir.resolve())
        output.close()
    assert stopped, f"stack did not stop within {_STOPS_WITHIN_S} s:\n{output.text}"


class _Output:
    """The output of a process, read at once, so that the process never blocks on a full pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._stream = process.stdout
        self._lines: list[str] = []
        self._ready = False
        self._ready_or_ended = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def text(self) -> str:
        return "".join(self._lines)

    def said_ready(self, *, within_s: float) -> bool:
        return self._ready_or_ended.wait(within_s) and self._ready

    def close(self) -> None:
        self._reader.join()
        self._stream.close()

    def _read(self) -> None:
        for line in self._stream:
            self._lines.append(line)
            if line.startswith("ready "):
                self._ready = True
                self._ready_or_ended.set()
        self._ready_or_ended.set()


def _read_env_file(run_dir: Path, pid: int) -> RunningStack:
    values: Sequence[str] = shlex.split((run_dir / "stack.env").read_text())
    variables = dict(value.split("=", maxsplit=1) for value in values)
    return RunningStack(
        run_dir=run_dir, pid=pid, **{name.lower(): value for name, value in variables.items()}
    )


def _stop(process: subprocess.Popen[str], run_dir: Path) -> bool:
    """Stop the stack; return true if a Ctrl-C was enough."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
    try:
        process.wait(timeout=_STOPS_WITHIN_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        end_processes_of_stack(run_dir, grace_s=0)
        return False
    return True
