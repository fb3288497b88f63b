"""A supervisord for the processes of a stack.

supervisord starts the processes of the Procfile, which stays the one list of them, and the stack's
own Redis and LiveKit, and restarts each that dies.
"""

import shlex
import subprocess
import sys
import xmlrpc.client  # nosec B411  # it speaks to our own supervisord, by a socket of ours
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from honcho.environ import parse_procfile
from supervisor.xmlrpc import SupervisorTransport

from devstack import PROJECT_ROOT, StackError
from devstack.files import write_private
from devstack.processes import end_with_parent

# supervisord binds a temporary name first: the path, a dot and its pid.
_SOCKET_PATH_MAX_BYTES = 107 - len(".4194304")

# The group of the Procfile's processes, and that of the servers they need: the servers are started
# first and stopped last. Within a group, supervisord stops all processes at the same time.
_APP_GROUP = "usher"
_SERVER_GROUP = "servers"
_STOP_WAIT_S = {_APP_GROUP: 10, _SERVER_GROUP: 2}
_STOPS_WITHIN_S = sum(_STOP_WAIT_S.values()) + 5
_PRIORITY = {_APP_GROUP: 20, _SERVER_GROUP: 10}


@dataclass(frozen=True, kw_only=True)
class Program:
    name: str
    state: str
    pid: int


def read_procfile(path: Path) -> dict[str, str]:
    """Parse the Procfile as honcho does: name -> command."""
    try:
        processes = dict(parse_procfile(path.read_text()).processes)
    except OSError as error:
        raise StackError(f"cannot read {path}: {error.strerror}") from error
    if not processes:
        raise StackError(f"{path} names no process: its lines read `name: command`")
    return processes


_CONFIG = """
[supervisord]
nodaemon=true
silent=true
logfile=%(here)s/log/supervisord.log
logfile_maxbytes=10MB
logfile_backups=1
pidfile=%(here)s/supervisord.pid
childlogdir=%(here)s/log

[unix_http_server]
file=%(here)s/supervisor.sock
chmod=0700

[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface

[supervisorctl]
serverurl=unix://%(here)s/supervisor.sock
"""
_GROUP = """
[group:{group}]
programs={programs}
priority={priority}
"""
# A process that ends within startsecs is started again 1, 2, 3, ... s later, any other at once.
_PROGRAM = """
[program:{name}]
command=/bin/sh -c {command}
autorestart=true
startsecs=1
startretries=1000000
stopasgroup=true
killasgroup=true
stopwaitsecs={stop_wait_s}
redirect_stderr=true
stdout_logfile=%(here)s/log/{name}.log
stdout_logfile_maxbytes=10MB
stdout_logfile_backups=1
"""


def supervisor_config(*, servers: Mapping[str, str], processes: Mapping[str, str]) -> str:
    """Make supervisord's configuration; sh runs every command, as with honcho."""
    sections = [_CONFIG]
    for group, commands in ((_SERVER_GROUP, servers), (_APP_GROUP, processes)):
        programs = ",".join(commands)
        sections.append(_GROUP.format(group=group, programs=programs, priority=_PRIORITY[group]))
        for name, command in commands.items():
            if " ;" in command or " #" in command:
                raise StackError(
                    f"{name}: supervisord takes what follows ` ;` or ` #` for a comment"
                )
            escaped = shlex.quote(command).replace("%", "%%")
            sections.append(
                _PROGRAM.format(name=name, command=escaped, stop_wait_s=_STOP_WAIT_S[group])
            )
    return "".join(sections)


class Supervisor:
    """A supervisord for one run directory."""

    def __init__(self, run_dir: Path) -> None:
        self._config_path = run_dir / "supervisord.conf"
        self.socket_path = run_dir / "supervisor.sock"
        if len(bytes(self.socket_path)) > _SOCKET_PATH_MAX_BYTES:
            raise StackError(
                f"the path {run_dir} is too long for a socket: set a shorter USHER_RUN_DIR"
            )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, config: str, environ: Mapping[str, str]) -> None:
        """Start supervisord, which ends when this process ends, even by SIGKILL."""
        write_private(self._config_path, config)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self._config_path)],
            cwd=PROJECT_ROOT,
            env=environ,
            stdin=subprocess.DEVNULL,
            # A Ctrl-C is for this process alone, which then stops supervisord in order.
            start_new_session=True,
            preexec_fn=end_with_parent,
        )

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def stop(self) -> None:
        """Stop supervisord and all processes; it kills those that do not stop in time."""
        if self._process is not None:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=_STOPS_WITHIN_S)


def list_programs(socket_path: Path) -> list[Program]:
    """Return the programs of the supervisord at the socket; none where it does not answer."""
    transport = SupervisorTransport(serverurl=f"unix://{socket_path}")
    proxy = xmlrpc.client.ServerProxy("http://localhost/RPC2", transport=transport)
    try:
        with proxy:
            listed = proxy.supervisor.getAllProcessInfo()
    except (OSError, xmlrpc.client.Error):
        return []
    assert isinstance(listed, list)
    return [Program(name=p["name"], state=p["statename"], pid=p["pid"]) for p in listed]
