"""`dispatch watch [ID]`: follow one dispatch, or all, event by event."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

import click

from dispatcher.cli import reach, rendering
from dispatcher.cli.command import Command, Exit, emit, printable
from dispatcher.cli.options import Duration, client_option, dispatch_id_argument
from dispatcher.domain.models import TERMINAL, Dispatch, State, TimelineEvent
from dispatcher.errors import UnknownDispatch
from dispatcher.explain.explanation import explain
from dispatcher.ledger import dispatches, keys, queries, reports
from dispatcher.ledger.client import Ledger

# A lost message delays an event no longer than this; a Redis that hangs is noticed as soon.
_LOOK_S: Final = 1.0


@click.command(
    "watch",
    cls=Command,
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
    else:
        _watch_all(store, client_id, until, as_json=as_json)


def _watch_one(store: Ledger, dispatch_id: str, until: float, *, as_json: bool) -> None:
    before = reach.read(store, dispatch_id)
    start_ms = before.timeline[0].at_ms if before.timeline else before.created_at_ms
    for state, event in _follow(store, dispatch_id, until=until):
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
        click.echo("\n".join(rendering.explanation(told)))
    click.get_current_context().exit(exit_code(dispatch))


def _follow(
    store: Ledger, dispatch_id: str, *, until: float
) -> Iterator[tuple[State, TimelineEvent]]:
    """Yield each event of a dispatch from its first one on, with the state of the record when read.

    Ends when the dispatch has ended, or at `until` (monotonic clock).

    Raises:
        UnknownDispatch: there is no such record, or none any more.
        LedgerUnavailable: Redis does not answer.
    """
    position = 0
    with store.listen(keys.wake_channel(dispatch_id)) as wait:
        while True:
            news = store.run(queries.news(dispatch_id, after=position))
            if news.state is None:
                raise UnknownDispatch(f"no dispatch {dispatch_id!r}")
            for event in news.events:
                yield news.state, event
            position = news.position
            left_s = until - time.monotonic()
            if news.state in TERMINAL or left_s <= 0:
                return
            wait(min(_LOOK_S, left_s))


def wait_for_join(store: Ledger, dispatch_id: str, *, within_s: float) -> Dispatch:
    """Return the record once it has joined or ended, or as it is after `within_s`."""
    until = time.monotonic() + within_s
    for state, _ in _follow(store, dispatch_id, until=until):
        if state is State.JOINED:
            break
    return reach.read(store, dispatch_id)


def exit_code(dispatch: Dispatch) -> Exit:
    """Return the exit code: OK with an agent, NEGATIVE after the end, else TIME_IS_UP."""
    if dispatch.state in (State.JOINED, State.ENDED):
        return Exit.OK
    return Exit.NEGATIVE if dispatch.terminal else Exit.TIME_IS_UP


def _watch_all(store: Ledger, client_id: str | None, until: float, *, as_json: bool) -> None:
    positions: dict[str, int] = {}
    with store.listen(f"{keys.WAKE_PREFIX}*") as wait:
        click.echo("watching; Ctrl-C ends it", err=True)  # no event is missed from now on
        while (left_s := until - time.monotonic()) > 0:
            channel = wait(min(_LOOK_S, left_s))
            if not channel:
                store.run(reports.ping())
                continue
            dispatch = store.run(dispatches.read(channel.removeprefix(keys.WAKE_PREFIX)))
            if dispatch is not None and client_id in (None, dispatch.client_id):
                for event in _news_of(dispatch, positions):
                    _print_of_any(dispatch, event, as_json=as_json)


def _news_of(dispatch: Dispatch, positions: dict[str, int]) -> Sequence[TimelineEvent]:
    """Return the events since `positions`; of a dispatch not seen before only the newest."""
    last = dispatch.timeline_dropped + len(dispatch.timeline)
    seen = positions.get(dispatch.dispatch_id, last - 1)
    if dispatch.terminal:
        positions.pop(dispatch.dispatch_id, None)
    else:
        positions[dispatch.dispatch_id] = last
    return dispatch.timeline[max(0, seen - dispatch.timeline_dropped) :]


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
