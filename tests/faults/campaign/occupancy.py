"""Which agents were in a room over time, and when its people were served; pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .evidence import Evidence, Room, Span, Stay
from .liveness import Liveness


def overlaps(room: Room, evidence: Evidence, *, living_only: bool) -> list[Span]:
    """When there was more than one agent in the room."""
    return [span for span, agents in agents_of(room, evidence, living_only) if len(agents) > 1]


def agents_of(
    room: Room, evidence: Evidence, living_only: bool
) -> Iterator[tuple[Span, frozenset[str]]]:
    """The room's agents over time: stretches in which they were the same.

    Empty, too, while LiveKit did not say.
    """
    moments = {view.at for view in room.views}
    if living_only:
        moments |= _ends_of_agents(room, evidence.liveness)
    ordered = sorted(moments)
    last: tuple[Span, frozenset[str]] | None = None
    for index, at in enumerate(ordered):
        end = ordered[index + 1] if index + 1 < len(ordered) else evidence.ended_at
        agents = frozenset(
            agent
            for agent in listed_at(room, at)
            if not living_only or evidence.liveness.alive(agent, at)
        )
        several = len(agents) > 1
        if last is not None and (last[1] == agents or (several and len(last[1]) > 1)):
            last = (Span(start=last[0].start, end=end), agents)
            continue
        if last is not None:
            yield last
        last = (Span(start=at, end=end), agents)
    if last is not None:
        yield last


def listed_at(room: Room, at: float) -> Mapping[str, int]:
    """What LiveKit had said last by then; nothing where it had not."""
    found: Mapping[str, int] | None = None
    for view in room.views:
        if view.at > at:
            break
        found = view.agents
    return found or {}


def silences(room: Room, stay: Stay, evidence: Evidence) -> Iterator[Span]:
    """Stretches of a stay in which no agent answered.

    Time in which LiveKit could not be asked is left out, and the clock starts anew when an agent
    dies: the deadline counts from the loss.
    """
    breaks = [(echo.at, echo.at) for echo in stay.echoes]
    breaks += [(at, at) for at in _deaths(room, evidence.liveness)]
    breaks += [(span.start, span.end) for span in blind(room, evidence)]
    since = stay.start
    for start, end in sorted(breaks):
        if start >= stay.end:
            break
        if start > since:
            yield Span(start=since, end=start)
        since = max(since, end)
    if since < stay.end:
        yield Span(start=since, end=stay.end)


def blind(room: Room, evidence: Evidence) -> list[Span]:
    """When LiveKit did not say who was in the room."""
    ends = [view.at for view in room.views[1:]] + [evidence.ended_at]
    return [
        Span(start=view.at, end=end)
        for view, end in zip(room.views, ends, strict=False)
        if view.agents is None
    ]


def agents_ever(room: Room, liveness: Liveness) -> set[str]:
    """Every agent that was started for the room or listed in it."""
    return liveness.agents_of(room.name) | {a for view in room.views for a in view.agents or {}}


def _deaths(room: Room, liveness: Liveness) -> set[float]:
    died = (liveness.died_at(agent) for agent in agents_ever(room, liveness))
    return {at for at in died if at is not None}


def _ends_of_agents(room: Room, liveness: Liveness) -> set[float]:
    ended = (liveness.ended_at(agent) for agent in agents_ever(room, liveness))
    return {at for at in ended if at is not None}
