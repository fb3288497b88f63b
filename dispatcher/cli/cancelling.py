"""`dispatch cancel ID`: end a dispatch."""

from __future__ import annotations

import click

from dispatcher.cli import reach
from dispatcher.cli.command import Command, emit
from dispatcher.cli.options import dispatch_id_argument
from dispatcher.errors import TooLate
from dispatcher.ledger import endings


@click.command(
    "cancel",
    cls=Command,
    examples=("cancel dsp_BWA-BKOFuK9gGdfLrxlpdg",),
)
@dispatch_id_argument()
def command(dispatch_id: str, as_json: bool) -> None:
    """End a dispatch at once; its agent is taken out of the room. One that has ended stays so."""
    store = reach.open_ledger()
    dispatch = reach.read(store, dispatch_id)
    retention_s = reach.common_settings().retention_s
    done = store.run(
        endings.cancel(
            dispatch, retention_s=retention_s, within_s=store.in_time_s, by="an operator"
        )
    )
    if done.outcome == "late":
        raise TooLate
    if as_json:
        emit({"dispatch_id": dispatch_id, "cancelled": done.moved, "state": done.state})
    elif done.moved:
        click.echo(f"{dispatch_id}  cancelled (it was {dispatch.state}); its agent leaves")
    else:
        click.echo(f"{dispatch_id}  is {done.state} already; nothing was changed")
