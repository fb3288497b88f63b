"""Start a stack, wait until it is ready, and stop it."""

import shlex
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NoReturn

from devstack import PROJECT_ROOT, StackError
from devstack.config import StackConfig
from devstack.credentials import load_credentials
from devstack.files import write_private
from devstack.interrupts import ignore_signals
from devstack.ports import choose_ports
from devstack.processes import end_processes_of_stack
from devstack.readiness import why_not_ready
from devstack.rundir import STOPPING, announce, hold_run_dir
from devstack.servers import (
    find_livekit_server,
    find_redis_server,
    write_livekit_config,
    write_redis_config,
)
from devstack.supervision import Supervisor, list_programs, read_procfile, supervisor_config

_READY_WITHIN_S = 150
_POLL_EVERY_S = 0.25
_LOG_TAIL_LINES = 25
_LEFTOVER_GRACE_S = 10


def provision(environ: Mapping[str, str]) -> tuple[Path, Path]:
    """Return the binaries of Redis and LiveKit; build a missing LiveKit server first."""
    redis = find_redis_server(environ)
    print(f"[2/4] Redis: {redis}", flush=True)
    print("[3/4] LiveKit server", flush=True)
    livekit = find_livekit_server(environ)
    print(f"      {livekit}", flush=True)
    return redis, livekit


@contextmanager
def running_stack(
    *,
    run_dir: Path,
    environ: Mapping[str, str],
    procfile: Path = PROJECT_ROOT / "Procfile",
    move_busy_defaults: bool = False,
) -> Iterator[tuple[StackConfig, Supervisor]]:
    """Run a whole stack within the block, with every part ready; end all its processes after it.

    Raises:
        StackError: it cannot start or is not ready in time.
    """
    processes = read_procfile(procfile)
    redis, livekit = provision(environ)
    with hold_run_dir(run_dir) as lock:
        if ended := end_processes_of_stack(run_dir, grace_s=_LEFTOVER_GRACE_S):
            print(f"      ended {ended} processes that a killed run had left", flush=True)
        config = StackConfig(
            run_dir=run_dir,
            ports=choose_ports(environ, move_busy_defaults=move_busy_defaults),
            credentials=load_credentials(run_dir / "secrets.json"),
        )
        supervisor = Supervisor(run_dir)
        try:
            print(f"[4/4] starting the stack, its logs are in {config.log_dir}", flush=True)
            servers = _prepare(config, redis, livekit, environ)
            supervised = supervisor_config(servers=servers, processes=processes)
            supervisor.start(supervised, config.process_environment(environ))
            _wait_until_ready(config, supervisor)
            write_private(config.env_file, config.shell_variables())
            yield config, supervisor
        finally:
            _stop(config, supervisor, lock)


def wait_while_alive(supervisor: Supervisor) -> NoReturn:
    """Wait until the stack ends; never return.

    Raises:
        KeyboardInterrupt: a signal has come.
        StackError: supervisord has died.
    """
    while supervisor.alive:
        time.sleep(_POLL_EVERY_S)
    raise StackError("supervisord has died, so the stack is stopped: see supervisord.log")


def _prepare(
    config: StackConfig, redis: Path, livekit: Path, environ: Mapping[str, str]
) -> dict[str, str]:
    """Write the servers' configuration files; return the servers' commands."""
    config.env_file.unlink(missing_ok=True)
    config.log_dir.mkdir(exist_ok=True)
    livekit_command = [str(livekit), "--config", str(write_livekit_config(config))]
    return {
        "redis": shlex.join(["exec", str(redis), str(write_redis_config(config, environ))]),
        # Lower priority than the web, as in the Procfile: a room costs more than an answer.
        "livekit": shlex.join(["exec", "nice", "-n", "10", *livekit_command]),
    }


def _wait_until_ready(config: StackConfig, supervisor: Supervisor) -> None:
    give_up_at = time.monotonic() + _READY_WITHIN_S
    told = ""
    while True:
        if not supervisor.alive:
            raise StackError(f"supervisord did not start:\n{_log_tail(config, 'supervisord')}")
        programs = list_programs(supervisor.socket_path)
        reasons = {each.name: why_not_ready(each, config) for each in programs}
        reasons = reasons or {"supervisord": "starting"}
        waited_for = {name: reason for name, reason in reasons.items() if reason}
        if not waited_for:
            return
        text = ", ".join(f"{name} ({reason})" for name, reason in waited_for.items())
        if time.monotonic() > give_up_at:
            tails = "\n".join(_log_tail(config, name) for name in waited_for)
            raise StackError(f"not ready after {_READY_WITHIN_S} s: {text}\n{tails}")
        if text != told:
            print(f"      waiting for {text}", flush=True)
            told = text
        time.sleep(_POLL_EVERY_S)


def _log_tail(config: StackConfig, name: str) -> str:
    path = config.log_dir / f"{name}.log"
    if not path.exists():
        return f"--- {path} does not exist"
    lines = path.read_text(errors="replace").splitlines()[-_LOG_TAIL_LINES:]
    return "\n".join([f"--- the end of {path}", *lines])


def _stop(config: StackConfig, supervisor: Supervisor, lock: IO[str]) -> None:
    ignore_signals()
    print("stopping", flush=True)
    announce(lock, STOPPING)
    config.env_file.unlink(missing_ok=True)
    supervisor.stop()
    end_processes_of_stack(config.run_dir, grace_s=0)
