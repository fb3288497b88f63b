"""`dispatch send`: dispatch an agent by hand.

It writes to the ledger as the web process does, so it works whenever Redis is there. The client's
limits apply.
"""

from __future__ import annotations

import secrets
from dataclasses import asdict
from typing import Any, Final

import click

from dispatcher.cli import reach, rendering, shapes
from dispatcher.cli.command import Command, Exit, Problem, emit, printable
from dispatcher.cli.options import client_option
from dispatcher.cli.watching import exit_code, wait_for_join
from dispatcher.clients.models import Client
from dispatcher.clients.registry import registry
from dispatcher.domain.models import Dispatch, NewDispatch
from dispatcher.domain.quotas import Admission
from dispatcher.explain.explanation import explain
from dispatcher.ledger import dispatches
from dispatcher.ledger.dispatches import Created

_MAX_NAME_BYTES: Final = 256
_MAX_DEPLOYMENT_BYTES: Final = 64
_MAX_METADATA_BYTES: Final = 64_000
_MARGIN_S: Final = 3.0


class _Text(click.ParamType[str]):
    """Text that LiveKit and Redis accept, of at most `max_bytes`."""

    name = "text"

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = str(value)
        if "\x00" in text or any("\ud800" <= c <= "\udfff" for c in text):
            self.fail("it has a NUL character or is not valid Unicode", param, ctx)
        if len(text.encode()) > self._max_bytes:
            self.fail(f"it is longer than {self._max_bytes} bytes", param, ctx)
        return text


@click.command(
    "send",
    cls=Command,
    examples=(
        "send --wait",
        "send --room room-1 --agent session-agent-rag --client acme",
        'send --room room-1 --metadata \'{"lang": "de"}\' --wait --json',
    ),
)
@click.option("--room", type=_Text(_MAX_NAME_BYTES), default="", help="Made up if left out.")
@click.option(
    "--agent", type=_Text(_MAX_NAME_BYTES), default="", help="The client's default one if left out."
)
@click.option(
    "--deployment",
    type=_Text(_MAX_DEPLOYMENT_BYTES),
    default="",
    help="Of the agent: the LIVEKIT_AGENT_DEPLOYMENT of its agent servers.",
)
@client_option("Whose session it is; needed where there are several.")
@click.option(
    "--metadata", type=_Text(_MAX_METADATA_BYTES), default="", help="For the agent: job metadata."
)
@click.option("--wait", is_flag=True, help="Until it has joined or failed; the exit code says it.")
def command(
    room: str,
    agent: str,
    deployment: str,
    client_id: str | None,
    metadata: str,
    wait: bool,
    as_json: bool,
) -> None:
    """Have an agent dispatched into a room.

    A room that has a live dispatch already keeps that one. With --wait it ends with 0 when the
    agent is in the room, with 1 when the dispatch has failed, and with 6 when neither was seen.
    """
    client = _client(client_id)
    new = _new(client, room, agent, deployment, metadata)
    store = reach.open_ledger()
    settings = reach.common_settings()
    created = store.run(
        dispatches.create(
            new,
            due_in_s=settings.wake_grace_s,
            detail={"by": "cli"},
            admission=Admission(
                limits=client.limits,
                paced=len(registry().clients) > 1,
                max_backlog=settings.max_backlog,
            ),
        )
    )
    if not as_json:
        click.echo(_outcome_line(created, new))
    dispatch = None
    if wait:
        dispatch = wait_for_join(store, created.dispatch_id, within_s=client.deadline_s + _MARGIN_S)
    _report(created, new, dispatch, as_json=as_json)


def _client(client_id: str | None) -> Client:
    clients = registry().clients
    names = ", ".join(client.client_id for client in clients)
    if client_id is None and len(clients) > 1:
        raise click.UsageError(f"name one with --client: {names}")
    found = next((c for c in clients if client_id in (None, c.client_id)), None)
    if found is None:
        raise Problem(f"no client {client_id!r}; there is: {names}", Exit.NOT_FOUND)
    return found


def _new(client: Client, room: str, agent: str, deployment: str, metadata: str) -> NewDispatch:
    if agent and not client.may_use(agent):
        raise Problem(
            f"client {client.client_id!r} may not use agent {agent!r}; it may use: "
            + ", ".join(client.agent_names),
            Exit.NEGATIVE,
        )
    return NewDispatch(
        dispatch_id=f"dsp_{secrets.token_urlsafe(16)}",
        client_id=client.client_id,
        room_name=room or f"room-{secrets.token_urlsafe(16)}",
        agent_name=agent or client.default_agent_name,
        deployment=deployment,
        container=client.container,
        agent_metadata=metadata,
        deadline_ms=int(client.deadline_s * 1000),
    )


def _outcome_line(created: Created, new: NewDispatch) -> str:
    room = printable(new.room_name)
    if created.new:
        return f"{created.dispatch_id}  sent: room {room}, agent {new.agent_name}"
    return f"{created.dispatch_id}  serves room {room} already ({created.state}); nothing was sent"


def _report(
    created: Created, new: NewDispatch, dispatch: Dispatch | None, *, as_json: bool
) -> None:
    state = dispatch.state if dispatch else created.state
    told = explain(dispatch, reach.timings()) if dispatch else None
    if as_json:
        emit(
            {
                "dispatch_id": created.dispatch_id,
                "client_id": new.client_id,
                "room_name": new.room_name,
                "agent_name": new.agent_name,
                "new": created.new,
                "state": state,
                "dispatch": shapes.record(dispatch) if dispatch else None,
                "explanation": asdict(told) if told else None,
            }
        )
    elif dispatch and told:
        click.echo("\n".join((*rendering.explanation(told), "", *rendering.stage_bars(dispatch))))
    if dispatch:
        click.get_current_context().exit(exit_code(dispatch))
