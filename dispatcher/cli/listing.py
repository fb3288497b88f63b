"""`dispatch list`: list dispatches."""

from __future__ import annotations

from heapq import merge
from itertools import islice

import click

from dispatcher.cli import reach, rendering, shapes
from dispatcher.cli.command import Command, emit
from dispatcher.cli.options import STATES, Duration, client_option
from dispatcher.domain.models import State
from dispatcher.ledger import reports


@click.command(
    "list",
    cls=Command,
    examples=(
        "list --since 1h",
        "list --state failed --client acme --since 1d",
        "list --state waiting --json | jq -r '.dispatches[].dispatch_id'",
    ),
)
@click.option("--state", type=STATES, help="Only those in this state.")
@client_option("Only this client's.")
@click.option("--since", "since_s", type=Duration(), help="Only those made since then (90s, 1h).")
@click.option(
    "--limit",
    type=click.IntRange(1, 10_000),
    default=50,
    show_default=True,
    help="At most so many, the newest first.",
)
def command(
    state: str | None, client_id: str | None, since_s: float | None, limit: int, as_json: bool
) -> None:
    """List dispatches of one client or of all, the newest first."""
    store = reach.open_ledger()
    wanted = State(state) if state else None
    clients = reach.wanted_clients(client_id)
    found = merge(
        *(reach.newest(store, each, state=wanted, since_s=since_s) for each in clients),
        key=lambda dispatch: dispatch.created_at_ms,
        reverse=True,
    )
    dispatches = list(islice(found, limit + 1))
    more = len(dispatches) > limit
    dispatches = dispatches[:limit]
    unreadable = store.run(reports.parked())
    parked = sorted(unreadable)
    if as_json:
        emit(
            {"dispatches": [shapes.summary(d) for d in dispatches], "more": more, "parked": parked}
        )
        return
    if dispatches:
        click.echo("\n".join(rendering.summaries(dispatches)))
    else:
        told = "" if client_id else ", by this environment's USHER_CLIENTS_FILE or USHER_CLIENT_ID"
        click.echo(f"No dispatches of client {', '.join(map(repr, clients))}{told}.")
    if more:
        click.echo(f"There are more than {limit}; --limit shows more of them.")
    if parked:
        click.echo(
            f"{len(parked)} parked record(s) that cannot be read, of whatever client: "
            + ", ".join(parked[:10])
        )
