"""Render dispatches and explanations for a terminal. Pure: values to lines of text."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import click

from dispatcher.cli.command import printable
from dispatcher.domain.models import Dispatch, State
from dispatcher.explain.explanation import Explanation
from dispatcher.explain.incidents import seconds
from dispatcher.explain.stages import SESSION, Stage, stages

WIDTH: Final = 100
_BAR: Final = 40
_COMMAND: Final = re.compile(r"`[^`]+`")
_NO_BREAK: Final = "\N{NO-BREAK SPACE}"
_COLOURS: Final[Mapping[str, str]] = {
    State.JOINED: "green",
    State.LEAVING: "green",
    State.ENDED: "green",
    State.FAILED: "red",
    State.CANCELLED: "magenta",
    State.WAITING: "yellow",
    State.DELEGATED: "yellow",
}
_EIGHTHS: Final = "▏▎▍▌▋▊▉█"


def clock(ms: int | None, *, date: bool = False) -> str:
    """Format a time, in UTC."""
    if not ms:
        return "-"
    moment = datetime.fromtimestamp(ms / 1000, UTC)
    return moment.strftime("%Y-%m-%d %H:%M:%SZ" if date else "%H:%M:%S.%f")[: None if date else -3]


class Styled(str):
    """Text of our own with escape codes; in any other text, from a caller maybe, they are shown."""


def styled(text: str, colour: str) -> Styled:
    """Return text of our own in a colour (click removes colours if not wanted)."""
    return Styled(click.style(text, fg=colour))


def coloured(state: str, text: str = "") -> Styled:
    """Return a state's name, or `text`, in the colour of the state."""
    return styled(text or state, _COLOURS.get(state, "cyan"))


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay out rows in columns as wide as their cells."""
    shown = [[c if isinstance(c, Styled) else printable(c) for c in row] for row in rows]
    columns = list(zip(heads, *shown, strict=True))
    widths = [max(len(click.unstyle(cell)) for cell in column) for column in columns]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell + " " * (width - len(click.unstyle(cell)))
            for cell, width in zip(cells, widths, strict=True)
        )
        return "  ".join(padded).rstrip()

    return [click.style(line(heads), bold=True), *(line(row) for row in shown)]


def wrapped(label: str, text: str, *, indent: int = 10) -> list[str]:
    """Lay out a paragraph beside its label."""
    first = f"  {label:<{indent - 2}}"
    # A command is copied as a whole, so it is kept on one line.
    text = _COMMAND.sub(lambda found: found[0].replace(" ", _NO_BREAK), printable(text))
    lines = textwrap.wrap(
        text,
        width=WIDTH,
        initial_indent=first,
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(_NO_BREAK, " ") for line in lines] or [first.rstrip()]


def explanation(told: Explanation) -> list[str]:
    """Render an explanation: headline, cause, advice, evidence."""
    lines = [click.style(printable(told.headline), bold=True)]
    lines += wrapped("why", told.cause)
    lines += wrapped("do", told.advice)
    for line in told.evidence:
        lines += wrapped("seen", line)
    return lines


def record(dispatch: Dispatch, told: Explanation) -> list[str]:
    """Render everything about a dispatch, the explanation first."""
    return [
        f"{dispatch.dispatch_id}  {coloured(dispatch.state)}",
        "",
        *explanation(told),
        "",
        *_facts(dispatch),
        "",
        *stage_bars(dispatch),
        "",
        *_attempts(dispatch),
        *_timeline(dispatch),
    ]


def _facts(dispatch: Dispatch) -> list[str]:
    facts = {
        "client": dispatch.client_id,
        "room": dispatch.room_name,
        "agent": dispatch.agent_name,
        "deployment": dispatch.deployment,
        "asked for": clock(dispatch.requested_at_ms, date=True),
        "deadline": clock(dispatch.deadline_at_ms, date=True),
        "generation": str(dispatch.generation),
        "container": dispatch.agent_container or dispatch.container,
        "server": dispatch.agent_server_id,
        "job": dispatch.job_id,
        "identity": dispatch.agent_identity,
        "to join": seconds(dispatch.time_to_join_ms)
        if dispatch.time_to_join_ms is not None
        else "",
        "failed for": dispatch.failure_reason,
    }
    return [f"  {name:<11} {printable(value)}" for name, value in facts.items() if value]


def bar(took: float, longest: float) -> str:
    """Draw a bar in eighths of a character, at least one."""
    eighths = max(1, round(took / max(longest, 1) * _BAR * 8))
    return "█" * (eighths // 8) + (_EIGHTHS[eighths % 8 - 1] if eighths % 8 else "")


def stage_bars(dispatch: Dispatch) -> list[str]:
    """Draw the stages as bars; a session, which may be hours, has none."""
    found = stages(dispatch)
    if not found:
        return ["stages: none in the timeline"]
    on_the_way = [stage for stage in found if stage.name != SESSION]
    longest = max((stage.took_ms for stage in on_the_way), default=0)
    return ["stages", *(_stage(stage, longest) for stage in found)]


def _stage(stage: Stage, longest: float) -> str:
    took = seconds(stage.took_ms) + ("+" if stage.open else "")
    picture = "" if stage.name == SESSION else bar(stage.took_ms, longest)
    why = f" {printable(stage.reason)}" if stage.reason else ""
    return f"  {stage.generation:>2} {stage.name:<10} {took:>9}  {picture}{why}".rstrip()


def _attempts(dispatch: Dispatch) -> Iterator[str]:
    if not dispatch.attempts:
        return
    yield "attempts"
    if dispatch.attempts_dropped:
        yield f"  ... {dispatch.attempts_dropped} attempts before are no longer kept"
    for attempt in dispatch.attempts:
        parts = (
            attempt.outcome or "on its way",
            f"({attempt.reason})" if attempt.reason else "",
            f"tries={attempt.tries}" if attempt.tries else "",
            attempt.livekit_dispatch_id,
        )
        yield f"  {attempt.generation:>2} {printable(' '.join(filter(None, parts)))}"
        for error in attempt.errors:
            yield f"     {printable(error)}"
    yield ""


def _timeline(dispatch: Dispatch) -> Iterator[str]:
    """Render the events, each with its time since the first one."""
    if not dispatch.timeline:
        return
    yield "timeline (ms)"
    if dispatch.timeline_dropped:
        yield f"  ... {dispatch.timeline_dropped} events before are no longer kept"
    start_ms = dispatch.timeline[0].at_ms
    width = max(len(event.event) for event in dispatch.timeline)
    for event in dispatch.timeline:
        detail = pairs(event.detail)
        yield (
            f"  {event.at_ms - start_ms:>7}  {event.generation:>2} {event.event:<{width}}  {detail}"
        ).rstrip()


def pairs(values: Mapping[str, str]) -> str:
    """Format values as name=value."""
    return printable(" ".join(f"{name}={value}" for name, value in values.items() if value))


def summaries(dispatches: Sequence[Dispatch]) -> list[str]:
    """Render one line for each dispatch."""
    heads = ("asked for", "dispatch", "state", "client", "room", "agent", "gen", "to join", "why")
    rows = [
        (
            clock(dispatch.created_at_ms, date=True),
            dispatch.dispatch_id,
            coloured(dispatch.state),
            dispatch.client_id,
            dispatch.room_name,
            dispatch.agent_name,
            str(dispatch.generation),
            "" if dispatch.time_to_join_ms is None else seconds(dispatch.time_to_join_ms),
            dispatch.failure_reason,
        )
        for dispatch in dispatches
    ]
    return table(heads, rows)
