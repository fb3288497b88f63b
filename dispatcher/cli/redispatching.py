"""`dispatch redispatch ID ...` or `--failed`: send dispatches again by hand."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

import click

from dispatcher.cli import reach
from dispatcher.cli.command import Command, Exit, emit, problem
from dispatcher.cli.options import Duration, client_option, complete_dispatches
from dispatcher.cli.rendering import styled, table
from dispatcher.domain.models import Dispatch, State
from dispatcher.errors import LiveKitError, RedispatchRefused, UnknownDispatch, UnreadableRecord
from dispatcher.ledger import dispatches, reports
from dispatcher.lifecycle import redispatching
from dispatcher.lifecycle.outcomes import read
from dispatcher.lifecycle.services import Services, open_services

SENT: Final = "sent"
WOULD_SEND: Final = "would_send"
REFUSED: Final = "refused"
UNKNOWN: Final = "unknown"
_COLOURS: Final = {SENT: "green", WOULD_SEND: "cyan", REFUSED: "yellow", UNKNOWN: "red"}
_HOUR_S: Final = 3600.0


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome for one dispatch."""

    dispatch_id: str
    outcome: str
    message: str
    room_name: str = ""
    generation: int | None = None


@click.command(
    "redispatch",
    cls=Command,
    examples=(
        "redispatch dsp_BWA-BKOFuK9gGdfLrxlpdg",
        "redispatch --failed --since 1h --dry-run",
        "redispatch --failed --since 1h --client acme --with-people --yes",
    ),
)
@click.argument("dispatch_ids", metavar="[ID]...", nargs=-1, shell_complete=complete_dispatches)
@click.option("--failed", is_flag=True, help="All that have failed within --since.")
@click.option(
    "--since", "since_s", type=Duration(), help="With --failed: when they failed (default: 1h)."
)
@client_option("With --failed: only this client's.")
@click.option(
    "--with-people", is_flag=True, help="With --failed: only where somebody is in the room now."
)
@click.option("--dry-run", is_flag=True, help="Change nothing; say what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask; without a terminal nobody is asked anyway.")
def command(
    dispatch_ids: tuple[str, ...],
    failed: bool,
    since_s: float | None,
    client_id: str | None,
    with_people: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Send ended, failed or agentless dispatches again.

    What would double an agent is refused: one that is on its way, has its agent, or whose room
    another dispatch serves; so is what is more than its client may ask for. Ends with 1 when any
    was refused, with 3 when any is unknown.
    """
    if bool(dispatch_ids) == failed:
        raise click.UsageError("name dispatches, or --failed for all of them")
    if not failed and (since_s is not None or client_id or with_people):
        raise click.UsageError("--since, --client and --with-people go with --failed")
    if failed:
        dispatch_ids = _failed(client_id, _HOUR_S if since_s is None else since_s)
        if dispatch_ids and not (dry_run or yes) and sys.stdin.isatty():
            click.confirm(f"Send {len(dispatch_ids)} failed dispatch(es) again?", abort=True)
    reach.open_ledger().run(reports.ping())  # fails early, before anything else is set up
    results = asyncio.run(_all(dispatch_ids, dry_run=dry_run, with_people=with_people))
    _report(results, dry_run=dry_run, as_json=as_json)


def _failed(client_id: str | None, since_s: float) -> tuple[str, ...]:
    """Return lately failed dispatches, the newest first: only a room's newest can be sent."""
    store = reach.open_ledger()
    oldest_ms = store.run(reports.ping()) - since_s * 1000
    found = [
        dispatch
        for each in reach.wanted_clients(client_id)
        # A dispatch that failed lately may have been created long before.
        for dispatch in reach.newest(store, each, state=State.FAILED, since_s=None)
        if dispatch.updated_at_ms >= oldest_ms
    ]
    found.sort(key=lambda dispatch: dispatch.created_at_ms, reverse=True)
    return tuple(dispatch.dispatch_id for dispatch in found)


async def _all(ids: Sequence[str], *, dry_run: bool, with_people: bool) -> list[Result]:
    services = await open_services(reach.common_settings())
    taken: dict[tuple[str, str, str], str] = {}  # rooms that a dispatch before would take
    try:
        return [await _one(services, each, taken, dry_run, with_people) for each in ids]
    finally:
        await services.aclose()


async def _one(
    services: Services,
    dispatch_id: str,
    taken: dict[tuple[str, str, str], str],
    dry_run: bool,
    with_people: bool,
) -> Result:
    try:
        dispatch = await read(services, dispatch_id)
        if with_people:
            await _refuse_empty_room(services, dispatch)
        if dry_run:
            await _check(services, dispatch, taken)
            message = f"{dispatch.state}, would become generation {dispatch.generation + 1}"
            outcome = WOULD_SEND
        else:
            dispatch = await redispatching.redispatch(services, dispatch_id, by="cli")
            message, outcome = f"generation {dispatch.generation}", SENT
    except (UnknownDispatch, RedispatchRefused, UnreadableRecord) as error:
        outcome = UNKNOWN if isinstance(error, UnknownDispatch) else REFUSED
        return Result(dispatch_id=dispatch_id, outcome=outcome, message=problem(error).message)
    return Result(
        dispatch_id=dispatch_id,
        outcome=outcome,
        message=message,
        room_name=dispatch.room_name,
        generation=dispatch.generation,
    )


async def _check(
    services: Services, dispatch: Dispatch, taken: dict[tuple[str, str, str], str]
) -> None:
    await redispatching.check(services, dispatch)
    room = dispatch.client_id, dispatch.agent_name, dispatch.room_name
    serving = await services.ledger.run(dispatches.serving(dispatch)) or taken.get(room, "")
    if serving not in ("", dispatch.dispatch_id):
        raise RedispatchRefused(f"room {dispatch.room_name!r} is served by dispatch {serving} now")
    taken[room] = dispatch.dispatch_id


async def _refuse_empty_room(services: Services, dispatch: Dispatch) -> None:
    try:
        room = await services.livekit(dispatch).look(dispatch.room_name)
    except LiveKitError as error:
        raise RedispatchRefused(f"cannot see whether anybody is in the room: {error}") from None
    if not room.people:
        raise RedispatchRefused(f"nobody is in room {dispatch.room_name!r}")


def _report(results: Sequence[Result], *, dry_run: bool, as_json: bool) -> None:
    counts = {name: sum(r.outcome == name for r in results) for name in _COLOURS}
    if as_json:
        emit({"dry_run": dry_run, "results": [asdict(r) for r in results], "counts": counts})
    elif not results:
        click.echo("Nothing has failed in that time.")
    else:
        heads = ("dispatch", "outcome", "room", "")
        rows = [
            (r.dispatch_id, styled(r.outcome, _COLOURS[r.outcome]), r.room_name, r.message)
            for r in results
        ]
        click.echo("\n".join(table(heads, rows)))
        told = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        click.echo(told + (" (dry run: nothing was changed)" if dry_run else ""))
    code = Exit.NEGATIVE if counts[REFUSED] else Exit.OK
    code = Exit.NOT_FOUND if counts[UNKNOWN] else code
    click.get_current_context().exit(code)
