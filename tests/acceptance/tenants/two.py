"""How does a test get two clients that share nothing but Usher?

Each has a LiveKit server with keys of its own, an agent server in a container of its own that
serves nobody else, and API keys. Their agents have the same name, as with one product for many
customers.
"""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from devstack import PROJECT_ROOT
from devstack.config import StackConfig
from devstack.credentials import load_credentials
from devstack.ports import PORT_VARIABLES, Ports, choose_ports
from devstack.servers import find_livekit_server, write_livekit_config
from tests.acceptance.session import Caller
from tests.conftest import PATIENT
from tests.faults.neighbour import NOBODYS_AGENT
from tests.support.clientsfile import a_key
from tests.support.stacks import RunningStack, running_stack

AGENT = "session-agent-rag"


@dataclass(frozen=True, kw_only=True)
class Tenant:
    """One of the two clients; `stack` is the whole of Usher with this client's keys in it."""

    client_id: str
    page: str  # the origin that its publishable key is for
    page_key: str = field(repr=False)
    own_agent: str  # which only this client may ask for
    stack: RunningStack
    livekit_program: str  # its name in the supervisor
    gateway_port: int = 0  # of the gateway before its LiveKit; 0: Usher asks it directly

    def caller(self) -> Caller:
        """Its backend."""
        return Caller(self.stack)


def _ports(*, apart_from: Ports | None = None) -> Ports:
    while True:
        ports = choose_ports(dict.fromkeys(PORT_VARIABLES, "0"))
        taken = set(dataclasses.astuple(apart_from)) if apart_from else set()
        if not taken & set(dataclasses.astuple(ports)):
            return ports


def _environ_of(ports: Ports) -> dict[str, str]:
    return {
        "USHER_WEB_PORT": str(ports.web),
        "USHER_REDIS_PORT": str(ports.redis),
        "USHER_LIVEKIT_PORT": str(ports.livekit),
        "USHER_LIVEKIT_TCP_PORT": str(ports.livekit_tcp),
        "USHER_LIVEKIT_UDP_PORT_START": str(ports.livekit_udp_start),
        "USHER_LIVEKIT_UDP_PORT_END": str(ports.livekit_udp_end),
        "USHER_FLOWER_PORT": str(ports.flower),
        "USHER_AGENT_PORT": str(ports.agent),
    }


def _entry(
    client_id: str, *, livekit_url: str, api_key: str, api_secret: str, more: str = ""
) -> str:
    page_key = a_key(client_id, f"{client_id}-page-key", kind="publishable")
    return f"""
[clients.{client_id}]
livekit_url = "{livekit_url}"
livekit_api_key = "{api_key}"
livekit_api_secret = "{api_secret}"
agent_names = ["{AGENT}", "agent-of-{client_id}", "{NOBODYS_AGENT}"]
container = "box-{client_id}"
{more}
origins = ["https://app.{client_id}.example"]
{a_key(client_id, f"{client_id}-secret-key")}{page_key}"""


def _agent_environ(client_id: str) -> dict[str, str]:
    return {
        "USHER_AGENT_CONTAINER": f"box-{client_id}",
        "USHER_AGENT_CLIENT_ID": client_id,
        # Nobody starts processes while times are taken.
        "USHER_AGENT_EXECUTOR": "thread",
    }


def _tenant(client_id: str, stack: RunningStack, livekit_program: str, **livekit: str) -> Tenant:
    return Tenant(
        client_id=client_id,
        page=f"https://app.{client_id}.example",
        page_key=f"{client_id}-page-key",
        own_agent=f"agent-of-{client_id}",
        stack=dataclasses.replace(
            stack, api_key=f"{client_id}-secret-key", usher_client_id=client_id, **livekit
        ),
        livekit_program=livekit_program,
    )


@contextmanager
def two_tenants(
    run_dir: Path, *, acme_more: str = "", gateway: bool = False
) -> Iterator[tuple[Tenant, Tenant]]:
    """acme, on the stack's own LiveKit and agent server, and globex, on a second one of each.

    `acme_more`: what else stands in its entry. `gateway`: Usher reaches acme's LiveKit by one.
    """
    ports = _ports()
    run_dir_2 = run_dir / "globex"
    run_dir_2.mkdir()
    second = StackConfig(
        run_dir=run_dir_2,
        # The web is one for both: LiveKit's webhooks go there.
        ports=dataclasses.replace(_ports(apart_from=ports), web=ports.web),
        credentials=load_credentials(run_dir_2 / "secrets.json"),
    )
    key, secret = second.credentials.livekit_api_key, second.credentials.livekit_api_secret
    binary = find_livekit_server(os.environ)
    livekit = [str(binary), "--config", str(write_livekit_config(second))]
    secret_file = second.run_dir / "livekit-secret"
    secret_file.write_text(secret)
    agent_file = second.run_dir / "agent.env"
    agent = {
        **_agent_environ("globex"),
        "LIVEKIT_URL": second.livekit_url,
        "LIVEKIT_API_KEY": key,
        "LIVEKIT_API_SECRET": secret,
        "USHER_AGENT_PORT": str(second.ports.agent),
    }
    agent_file.write_text("".join(f"{name}={shlex.quote(it)}\n" for name, it in agent.items()))
    procfile = run_dir / "Procfile"
    procfile.write_text(
        f"{(PROJECT_ROOT / 'Procfile').read_text()}\n"
        f"livekit-globex: exec nice -n 10 {shlex.join(livekit)}\n"
        f"agent-globex: set -a && . {shlex.quote(str(agent_file))} && "
        "exec nice -n 10 python -m worker_agent\n"
    )
    # The second stack of ports has no Redis of its own.
    gateway_port = second.ports.redis if gateway else 0
    if gateway:
        command = f"exec nice -n 10 python -m tests.faults.gateway {gateway_port} {ports.livekit}"
        with procfile.open("a") as file:
            file.write(f"gateway: {command}\n")
    clients = run_dir / "clients.toml"
    own = f"ws://127.0.0.1:{gateway_port or ports.livekit}"
    clients.write_text(
        _entry(
            "acme",
            livekit_url=own,
            api_key="env:LIVEKIT_API_KEY",
            api_secret="env:LIVEKIT_API_SECRET",
            more=acme_more,
        )
        + _entry(
            "globex",
            livekit_url=second.livekit_url,
            api_key=key,
            api_secret=f"file:{secret_file}",
        )
    )
    environ = {
        **PATIENT,
        **_environ_of(ports),
        **_agent_environ("acme"),
        "USHER_CLIENTS_FILE": str(clients),
        # So few that a dozen sessions of one client, were they let, would hold them all.
        "USHER_DISPATCH_CONCURRENCY": "8",
        "USHER_VERIFY_CONCURRENCY": "8",
        "USHER_CLIENT_TASKS": "4",
        # Nobody comes to the sessions that must stay as they are while others try to reach them.
        "USHER_ABANDON_AFTER_S": "3600",
        # Each request of a test comes from an address of its own, or 20 wrong keys a minute were
        # too many.
        "USHER_TRUSTED_PROXIES": "1",
    }
    with running_stack(run_dir, environ=environ, procfile=procfile) as stack:
        yield (
            dataclasses.replace(_tenant("acme", stack, "livekit"), gateway_port=gateway_port),
            _tenant(
                "globex",
                stack,
                "livekit-globex",
                livekit_url=second.livekit_url,
                livekit_api_key=key,
                livekit_api_secret=secret,
            ),
        )
