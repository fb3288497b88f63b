"""`dispatch agents`: list the agent servers that are online, with their slots and load."""

from __future__ import annotations

import click

from dispatcher.cli import reach, shapes
from dispatcher.cli.command import Command, Exit, emit
from dispatcher.cli.options import client_option
from dispatcher.cli.rendering import styled, table
from dispatcher.domain.models import AgentServerReport
from dispatcher.ledger import reports


@click.command(
    "agents",
    cls=Command,
    examples=("agents", "agents --client acme --agent session-agent-rag", "agents --json"),
)
@client_option("Only those that serve this client.")
@click.option("--agent", "agent_name", help="Only those of this agent name.")
def command(client_id: str | None, agent_name: str | None, as_json: bool) -> None:
    """List the online agent servers with slots, load and state.

    Online are those that have reported themselves in the last seconds. Ends with 1 when there is
    none. Agents of USHER_UNFENCED_AGENTS report nothing and are never here.
    """
    found = sorted(
        (
            server
            for server in reach.open_ledger().run(reports.agent_servers())
            if (client_id is None or server.client_id in ("", client_id))
            and (agent_name is None or server.agent_name == agent_name)
        ),
        key=lambda server: (server.agent_name, server.container, server.agent_server_id),
    )
    if as_json:
        emit({"agent_servers": [shapes.agent_server(server) for server in found]})
    elif found:
        heads = ("agent", "agent server", "container", "client", "slots", "free", "load", "state")
        click.echo("\n".join(table(heads, [_row(server) for server in found])))
    else:
        click.echo(
            "No agent server has reported itself in the last seconds. Start one (python -m "
            "worker_agent) or read its log: it needs this REDIS_URL."
        )
    click.get_current_context().exit(Exit.OK if found else Exit.NEGATIVE)


def _row(server: AgentServerReport) -> tuple[str, ...]:
    return (
        f"{server.agent_name} ({server.deployment})" if server.deployment else server.agent_name,
        server.agent_server_id,
        server.container,
        server.client_id or "(any)",
        f"{server.used_slots}/{server.slots}",
        str(server.free_slots),
        f"{server.load:.2f}",
        _state(server),
    )


def _state(server: AgentServerReport) -> str:
    if server.draining:
        return styled("draining", "yellow")
    if not server.registered:
        return styled("not registered at LiveKit", "red")
    if server.cannot_start:
        return styled("cannot start its processes", "red")
    if server.takes == 0 and server.used_slots < server.slots:
        return styled("takes none: its own load report", "yellow")
    if server.starts == 0 and server.used_slots < server.slots:
        return styled("takes none: many are joining", "yellow")
    return styled("full", "yellow") if not server.free_slots else "online"
