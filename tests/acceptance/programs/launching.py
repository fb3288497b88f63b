"""Agent servers of these programs, each started in its turn while earlier ones are being tested."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from devstack import PROJECT_ROOT
from devstack.processes import MARK_VARIABLE
from tests.acceptance.session import wait_for
from tests.conftest import PATIENT
from tests.support.stacks import RunningStack

HERE = Path(__file__).parent
PLAIN = "plain"  # in place of an executor: without the two lines, and with the executor below
PLAIN_EXECUTOR = "thread"
# Of 4 to 8 s of a processor each; on a machine that runs other tests, too.
STARTS_WITHIN_S = 150
AT_ONCE = 2


def without_the_two_lines(program: str) -> str:
    """The text of a program as it was before it became one of Usher's."""
    for ours, plain in (
        ("from worker_agent import rtc_session\n", ""),
        ("rtc_session(server, ", "server.rtc_session("),
        ("rtc_session(\n    server,\n", "server.rtc_session(\n"),
        ("from worker_agent import agent_server\n", ""),
        ("agent_server(options)", "options"),
        # By default it reports the machine's load, and a machine that runs tests would get no jobs.
        ("AgentServer(\n", "AgentServer(\n    load_fnc=lambda: 0.0,\n"),
        ("WorkerOptions(\n", "WorkerOptions(\n        load_fnc=lambda: 0.0,\n"),
    ):
        program = program.replace(ours, plain)
    assert "worker_agent" not in program
    return program


@dataclass(frozen=True, kw_only=True)
class AgentServerProcess:
    """One running program; its agent has the name of the test's parameter."""

    agent_name: str
    process: subprocess.Popen[bytes]
    log_file: Path

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self.log_file.read_text(errors="replace")

    def wait_until_logged(self, words: str, *, within_s: float = STARTS_WITHIN_S) -> None:
        """Return when it has logged `words`; fail with its log's end when it has ended first."""

        def look() -> bool | None:
            assert self.process.poll() is None, self.log[-2000:]
            return words in self.log or None

        wait_for(f"{self.agent_name}: {words}", look, within_s=within_s)

    def kill(self) -> None:
        """End it and its job processes, which are in a process group of their own."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Programs:
    """The agent servers of one stack, by agent name: `PROGRAM-EXECUTOR`."""

    def __init__(
        self, stack: RunningStack, folder: Path, agent_names: Sequence[str], **environ: str
    ) -> None:
        """Start them in that order; one that is named several times is ended after so many uses."""
        self._stack = stack
        self._folder = folder
        self._environ = environ
        self._uses = Counter(agent_names)
        self._starters = ThreadPoolExecutor(AT_ONCE)
        self._started: list[AgentServerProcess] = []
        self._serving: dict[str, Future[AgentServerProcess]] = {
            name: self._starters.submit(self._serve, name) for name in self._uses
        }

    @contextlib.contextmanager
    def used(self, agent_name: str) -> Iterator[AgentServerProcess]:
        """The server of that name, once LiveKit has registered it."""
        server = self._serving[agent_name].result(2 * STARTS_WITHIN_S)
        try:
            yield server
        finally:
            self._uses[agent_name] -= 1
            if not self._uses[agent_name]:
                server.kill()

    def start(self, agent_name: str) -> AgentServerProcess:
        """Start one without waiting for it."""
        kind, _, executor = agent_name.rpartition("-")
        file = HERE / f"{kind}.py"
        if executor == PLAIN:
            text = without_the_two_lines(file.read_text())
            file = self._folder / f"plain_{kind}.py"
            file.write_text(text)
        log_file = self._folder / f"{agent_name}.log"
        with log_file.open("wb") as output:
            process = subprocess.Popen(
                ["nice", "-n", "10", sys.executable, str(file), "start"],
                cwd=self._folder,
                env=self._environment(agent_name, executor),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = AgentServerProcess(agent_name=agent_name, process=process, log_file=log_file)
        self._started.append(server)
        return server

    def close(self) -> None:
        """End all that run."""
        self._starters.shutdown(wait=False, cancel_futures=True)
        for server in self._started:
            server.kill()
        self._starters.shutdown()

    def _serve(self, agent_name: str) -> AgentServerProcess:
        server = self.start(agent_name)
        server.wait_until_logged("registered worker")
        return server

    def _environment(self, agent_name: str, executor: str) -> Mapping[str, str]:
        stack = self._stack
        usher = {**PATIENT, "REDIS_URL": stack.redis_url, "PYTHONPATH": str(PROJECT_ROOT)}
        return {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            **({} if executor == PLAIN else usher),
            "LIVEKIT_URL": stack.livekit_url,
            "LIVEKIT_API_KEY": stack.livekit_api_key,
            "LIVEKIT_API_SECRET": stack.livekit_api_secret,
            MARK_VARIABLE: str(stack.run_dir),  # ended with the stack, should this process die
            "PYTHONUNBUFFERED": "1",
            "PORT": "0",
            "AGENT": agent_name,
            "EXECUTOR": PLAIN_EXECUTOR if executor == PLAIN else executor,
            **self._environ,
        }
