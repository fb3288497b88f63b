"""`dispatch show ID`: explain what became of a dispatch, and why."""

from __future__ import annotations

from dataclasses import asdict

import click

from dispatcher.cli import reach, rendering, shapes
from dispatcher.cli.command import Command, Exit, emit
from dispatcher.cli.options import dispatch_id_argument
from dispatcher.domain.models import Dispatch
from dispatcher.domain.timing import Timings
from dispatcher.explain.explanation import Explanation, explain, explain_parked, explain_unknown
from dispatcher.ledger import reports
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.dispatches import read


@click.command(
    "show",
    cls=Command,
    examples=(
        "show dsp_BWA-BKOFuK9gGdfLrxlpdg",
        "show dsp_BWA-BKOFuK9gGdfLrxlpdg --json | jq .explanation.cause",
    ),
)
@dispatch_id_argument()
def command(dispatch_id: str, as_json: bool) -> None:
    """Say what became of a dispatch, why, and what to do.

    With its stages, attempts and timeline. Ends with 0 whatever became of it, with 3 when there is
    no such dispatch, and with 1 when its record cannot be read (it was parked).
    """
    store = reach.open_ledger()
    dispatch, told, code = look(store, dispatch_id, reach.timings())
    if as_json:
        record = shapes.record(dispatch) if dispatch else None
        emit({"dispatch": record, "explanation": asdict(told)})
    else:
        lines = rendering.record(dispatch, told) if dispatch else rendering.explanation(told)
        click.echo("\n".join(lines))
    click.get_current_context().exit(code)


def look(
    store: Ledger, dispatch_id: str, timings: Timings
) -> tuple[Dispatch | None, Explanation, Exit]:
    """Return the record, if it can be read, its explanation and the exit code."""
    parked = store.run(reports.parked())
    if dispatch_id in parked:
        return None, explain_parked(dispatch_id, parked[dispatch_id]), Exit.NEGATIVE
    try:
        dispatch = store.run(read(dispatch_id))
    except (KeyError, TypeError, ValueError) as error:  # the sweeper has not parked it yet
        reason = f"{type(error).__name__}: {error}"
        return None, explain_parked(dispatch_id, reason), Exit.NEGATIVE
    if dispatch is None:
        return None, explain_unknown(dispatch_id, timings), Exit.NOT_FOUND
    return dispatch, explain(dispatch, timings), Exit.OK
