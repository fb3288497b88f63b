"""What a round runs on: a stack with two tenants, and a gateway before the first one's LiveKit.

The people of a round belong to the first tenant. The second, the neighbour, has a LiveKit server,
an agent server and API keys of its own; `tests.faults.neighbour` asks in its name. Usher's workers
reach the first tenant's LiveKit through the gateway; people, agents and the watch go past it.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from devstack.config import StackConfig
from devstack.credentials import load_credentials
from devstack.ports import LOOPBACK, PORT_VARIABLES, Ports, choose_ports
from devstack.servers import find_livekit_server, write_livekit_config
from devstack.supervision import read_procfile
from tests.faults.neighbour import NOBODYS_AGENT
from tests.support.stacks import RunningStack

PEOPLE: Final = "demo"  # the stack's own client
NEIGHBOUR: Final = "neighbour"
# The neighbour asks for more than each of its limits, and for more than may be on their way at all.
MAX_SESSIONS: Final = 100
REQUESTS_PER_MINUTE: Final = 600
MAX_BACKLOG: Final = 80
_PEOPLE_KEY: Final = "the-key-of-the-people-of-a-campaign"
_NEIGHBOUR_KEY: Final = "the-key-of-their-neighbour-in-a-campaign"
_AGENT: Final = "session-agent-rag"
_NEIGHBOURS_AGENT: Final = "agent-of-the-neighbour"


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A stack that is about to be started, and what its neighbour and its gateway go by."""

    procfile: Path
    environ: Mapping[str, str]
    gateway_port: int
    neighbour_key: str = field(default=_NEIGHBOUR_KEY, repr=False)

    def of_the_people(self, stack: RunningStack) -> RunningStack:
        """The stack as the first tenant reaches it."""
        return dataclasses.replace(stack, api_key=_PEOPLE_KEY)


def prepare(directory: Path, procfile: Path) -> Deployment:
    """Write what a stack with the processes of `procfile` needs into `directory`."""
    ports = _ports()
    theirs = _ports(apart_from=ports)
    second = _second_livekit(directory / NEIGHBOUR, dataclasses.replace(theirs, web=ports.web))
    gateway_port = theirs.web
    direct, by_gateway = (
        f"ws://{LOOPBACK}:{ports.livekit}",
        f"ws://{LOOPBACK}:{gateway_port}",
    )
    clients = _clients(directory / "clients.toml", direct, second)
    workers_clients = _clients(directory / "clients-of-workers.toml", by_gateway, second)
    lines = {
        name: _line(name, command, workers_clients)
        for name, command in read_procfile(procfile).items()
    }
    lines["gateway"] = (
        f"exec nice -n 10 python -m tests.faults.gateway {gateway_port} {ports.livekit}"
    )
    livekit = [str(find_livekit_server(os.environ)), "--config", str(write_livekit_config(second))]
    lines["livekit-neighbour"] = f"exec nice -n 10 {shlex.join(livekit)}"
    lines["agent-neighbour"] = (
        f"set -a && . {shlex.quote(str(_agent_settings(second)))} && "
        "exec nice -n 10 python -m worker_agent"
    )
    written = directory / "Procfile"
    written.write_text("".join(f"{name}: {command}\n" for name, command in lines.items()))
    return Deployment(
        procfile=written,
        environ={
            **_environ_of(ports),
            "USHER_CLIENTS_FILE": str(clients),
            "USHER_MAX_BACKLOG": str(MAX_BACKLOG),
        },
        gateway_port=gateway_port,
    )


def _ports(*, apart_from: Ports | None = None) -> Ports:
    while True:
        ports = choose_ports(dict.fromkeys(PORT_VARIABLES, "0"))
        taken = set(dataclasses.astuple(apart_from)) if apart_from else set()
        if not taken & set(dataclasses.astuple(ports)):
            return ports


def _environ_of(ports: Ports) -> dict[str, str]:
    """The variables that have a stack take these ports."""
    values = dataclasses.asdict(ports)
    names = ("web", "redis", "livekit", "livekit_tcp", "flower", "agent")
    given = {f"USHER_{name.upper()}_PORT": str(values[name]) for name in names}
    return given | {
        "USHER_LIVEKIT_UDP_PORT_START": str(ports.livekit_udp_start),
        "USHER_LIVEKIT_UDP_PORT_END": str(ports.livekit_udp_end),
    }


def _second_livekit(run_dir: Path, ports: Ports) -> StackConfig:
    run_dir.mkdir()
    credentials = load_credentials(run_dir / "secrets.json")
    return StackConfig(run_dir=run_dir, ports=ports, credentials=credentials)


def _clients(path: Path, livekit_url: str, second: StackConfig) -> Path:
    secret = second.run_dir / "livekit-secret"
    secret.touch(mode=0o600)
    secret.write_text(second.credentials.livekit_api_secret)
    # What the people's requests carry is no secret. The neighbour delegates nothing: where nobody
    # comes, nothing tells of what a web has promised without Redis once that web is killed, too.
    path.touch(mode=0o600)
    path.write_text(f"""
[clients.{PEOPLE}]
livekit_url = "{livekit_url}"
livekit_api_key = "env:LIVEKIT_API_KEY"
livekit_api_secret = "env:LIVEKIT_API_SECRET"
agent_names = ["{_AGENT}"]
delegates_metadata = true
{_key(PEOPLE, _PEOPLE_KEY)}
[clients.{NEIGHBOUR}]
livekit_url = "{second.livekit_url}"
livekit_api_key = "{second.credentials.livekit_api_key}"
livekit_api_secret = "file:{secret}"
agent_names = ["{_NEIGHBOURS_AGENT}", "{NOBODYS_AGENT}"]
delegates = false
max_sessions = {MAX_SESSIONS}
requests_per_minute = {REQUESTS_PER_MINUTE}
{_key(NEIGHBOUR, _NEIGHBOUR_KEY)}""")
    return path


def _key(client_id: str, key: str) -> str:
    digest = sha256(key.encode()).hexdigest()
    return f"""
[[clients.{client_id}.keys]]
id = "campaign"
kind = "secret"
sha256 = "{digest}"
"""


def _agent_settings(second: StackConfig) -> Path:
    """The environment of the neighbour's agent server, as a shell reads it."""
    settings = {
        "LIVEKIT_URL": second.livekit_url,
        "LIVEKIT_API_KEY": second.credentials.livekit_api_key,
        "LIVEKIT_API_SECRET": second.credentials.livekit_api_secret,
        "USHER_AGENT_PORT": "0",
        "USHER_AGENT_NAME": _NEIGHBOURS_AGENT,
        "USHER_AGENT_CLIENT_ID": NEIGHBOUR,
        "USHER_AGENT_EXECUTOR": "thread",
        "USHER_AGENT_ENTRYPOINT": "worker_agent.echo:entrypoint",
    }
    path = second.run_dir / "agent.env"
    path.touch(mode=0o600)
    path.write_text("".join(f"{name}={shlex.quote(it)}\n" for name, it in settings.items()))
    return path


def _line(name: str, command: str, workers_clients: Path) -> str:
    """The command with a file that says whether its process works; a worker's, by the gateway."""
    if name == "web":
        return command
    exports = [f'USHER_ALIVE_FILE="$USHER_RUN_DIR/{name}.alive"']
    if " worker " in command:
        exports.append(f"USHER_CLIENTS_FILE={shlex.quote(str(workers_clients))}")
    return f"export {' '.join(exports)}; {command}"
