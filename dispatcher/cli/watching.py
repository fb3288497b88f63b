"""`dispatch watch [ID]`: show events as they happen."""

from __future__ import annotations

import math
import time
from dataclasses import asdict
from typing import Any

import click

from dispatcher.cli import reach, rendering
from dispatcher.cli.command import Command, emit, printable
from dispatcher.cli.following import follow, follow_all
from dispatcher.cli.options import Duration, client_option, dispatch_id_argument
from dispatcher.cli.sending import exit_code
from dispatcher.domain.models import Dispatch, TimelineEvent
from dispatcher.explain.explanation import explain
from dispatcher.ledger.client import Ledger


@click.command(
    "watch",
    cls=Command,
    short_help="What happens, as it happens.",
    examples=("watch", "watch --client acme --for 30s", "watch dsp_BWA-BKOFuK9gGdfLrxlpdg"),
)
@dispatch_id_argument(required=False)
@client_option("Only this client's; not with an ID.")
@click.option("--for", "for_s", type=Duration(), help="End after so long (30s, 5m).")
def command(
    dispatch_id: str | None, client_id: str | None, for_s: float | None, as_json: bool
) -> None:
    """Show what happens to one dispatch, or to all, as it happens.

    One dispatch is followed from its first event to its end; it ends with 0 when it has joined,
    with 1 when it has failed or was cancelled, and with 6 when --for was over before. Without an
    ID it goes on until Ctrl-C or --for. With --json each event is one line of JSON.
    """
    if dispatch_id and client_id:
        raise click.UsageError("an ID is enough: --client is for watching all")
    store = reach.open_ledger()
    until = time.monotonic() + (math.inf if for_s is None else for_s)
    if dispatch_id:
        _watch_one(store, dispatch_id, until, as_json=as_json)
        return

    def listening() -> None:
        click.echo("watching; Ctrl-C ends it", err=True)

    for dispatch, event in follow_all(store, client_id=client_id, until=until, listening=listening):
        _print_of_any(dispatch, event, as_json=as_json)


def _watch_one(store: Ledger, dispatch_id: str, until: float, *, as_json: bool) -> None:
    before = reach.read(store, dispatch_id)
    start_ms = before.timeline[0].at_ms if before.timeline else before.created_at_ms
    for state, event in follow(store, dispatch_id, until=until):
        if as_json:
            emit({"dispatch_id": dispatch_id, "state": state, **asdict(event)}, indent=None)
        else:
            detail = rendering.pairs(event.detail)
            took = event.at_ms - start_ms
            click.echo(f"{took:>7}  {event.generation:>2} {event.event:<20} {detail}".rstrip())
    dispatch = reach.read(store, dispatch_id)
    told = explain(dispatch, reach.timings())
    if as_json:
        last: dict[str, Any] = {"dispatch_id": dispatch_id, "state": dispatch.state}
        emit({**last, "explanation": asdict(told)}, indent=None)
    else:
        click.echo("\n".join(rendering.explained(told)))
    click.get_current_context().exit(exit_code(dispatch))


def _print_of_any(dispatch: Dispatch, event: TimelineEvent, *, as_json: bool) -> None:
    if as_json:
        names = ("dispatch_id", "client_id", "room_name", "agent_name", "state")
        about = {name: getattr(dispatch, name) for name in names}
        emit({**about, **asdict(event)}, indent=None)
        return
    what = rendering.coloured(dispatch.state, f"{event.event:<20}")
    about_whom = printable(f"{dispatch.client_id} {dispatch.room_name}")
    detail = rendering.pairs(event.detail)
    click.echo(
        f"{rendering.clock(event.at_ms)}  {dispatch.dispatch_id}  {event.generation:>2} {what} "
        f"{about_whom}  {detail}".rstrip()
    )
