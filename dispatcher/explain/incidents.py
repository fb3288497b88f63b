"""List what went wrong on a dispatch's way, whether its agent joined in the end or not.

Pure: read from the record's attempts and timeline, one plain sentence each, in order of time.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Final

from dispatcher.domain.models import Attempt, Dispatch, TimelineEvent
from dispatcher.domain.timing import Timings
from dispatcher.explain.stages import ADOPTION, QUEUE_WAIT, WAITING, stages

# While a verify worker watches, a connected agent is seen within some 50 ms.
SLOW_LOOK_MS: Final = 1000
_UNITS: Final = (
    (86_400, "a day", "days"),
    (3600, "an hour", "hours"),
    (60, "a minute", "minutes"),
)
# The sentence of an event, with the names of its detail.
_EVENTS: Final[Mapping[str, str]] = {
    "restored": "Redis did not have the record: it was away when the session was asked for, or has "
    "lost data since; {by} wrote it.",
    "adopted": "LiveKit brought the agent by the participant's token; it was taken over.",
    "surplus_agent": "A second agent {agent_identity} was there and was put out.",
    "foreign_agent": "Agent {agent_identity} of the same name, sent by another backend and not by "
    "Usher, was there and was put out.",
    "agent_adopted": "The agent had gone and another one of its name, {agent_identity}, had taken "
    "its place.",
    "agent_lost": "Agent {agent_identity} was given up: {reason}.",
    "redispatch": "It was dispatched again by {by}.",
    "redispatch_refused": "A redispatch was refused: {message}.",
}
_WRITERS: Final = {"agent": "the agent itself", "web": "the web process that had promised it"}


def seconds(ms: float) -> str:
    """Format a measured time for people."""
    return f"{ms:.0f} ms" if ms < 1000 else f"{ms / 1000:.1f} s"


def duration(seconds_: float) -> str:
    """Format a time-out for people, as a setting gives it: "5 s", "a day"."""
    for unit_s, one, several in _UNITS:
        number, rest = divmod(seconds_, unit_s)
        if number and not rest:
            return one if number == 1 else f"{number:.0f} {several}"
    return f"{seconds_:g} s"


def is_slow_start(queued_ms: int, timings: Timings) -> bool:
    """Return whether a record was queued for so long that the sweeper wakes a worker again."""
    return queued_ms >= timings.wake_grace_s * 1000


def incidents(dispatch: Dispatch, timings: Timings) -> tuple[str, ...]:
    """Return one sentence for each incident; none if all went as it should."""
    told = [
        *_dropped(dispatch),
        *_of_stages(dispatch, timings),
        *_of_attempts(dispatch),
        *_of_events(dispatch),
        *_slow_look(dispatch),
    ]
    return tuple(text for _, text in sorted(told, key=itemgetter(0)))


def _dropped(dispatch: Dispatch) -> Iterator[tuple[int, str]]:
    if dispatch.attempts_dropped:
        yield 0, f"The first {dispatch.attempts_dropped} attempts are no longer kept."
    if dispatch.timeline_dropped:
        yield 0, f"The first {dispatch.timeline_dropped} events are no longer kept."


def _of_stages(dispatch: Dispatch, timings: Timings) -> Iterator[tuple[int, str]]:
    for stage in stages(dispatch):
        if stage.open:
            continue
        took, text = seconds(stage.took_ms), ""
        if stage.name == QUEUE_WAIT and is_slow_start(stage.took_ms, timings):
            text = (
                f"It stood in the queue for {took} before anybody took it up: its wake-up was "
                "lost, or the dispatch workers were away or busy."
            )
        elif stage.name == WAITING:
            text = f"It waited {took}: {stage.reason or 'the reason is not in the timeline'}."
        elif stage.name == ADOPTION:
            text = f"It took {took} to find out what LiveKit had done meanwhile."
        if text:
            yield stage.began_at_ms, text


def _of_attempts(dispatch: Dispatch) -> Iterator[tuple[int, str]]:
    for attempt in dispatch.attempts:
        name = f"Attempt {attempt.generation}"
        events = [e for e in dispatch.timeline if e.generation == attempt.generation]
        at_ms = events[-1].at_ms if events else 0
        for error in attempt.errors:
            yield at_ms, f"{name}, {error}."
        if text := _outcome(attempt, dispatch.timeline):
            yield at_ms, f"{name}: {text}"
        if attempt.outcome and _answer_not_noted(events):
            yield (
                at_ms,
                f"{name}: LiveKit did as it was asked, and its answer was never written down: the "
                "dispatch worker died or was cut off in that moment.",
            )


def _outcome(attempt: Attempt, timeline: Iterable[TimelineEvent]) -> str:
    """Tell how an attempt ended; the next generation's first event says more of it."""
    later = (event.detail for event in timeline if event.generation == attempt.generation + 1)
    after: Mapping[str, str] = next(later, {})
    match attempt.outcome:
        case "abandoned":
            return (
                "the dispatch worker that had it in hand was killed, frozen or cut off; it was "
                "taken over after its lease."
            )
        case "crashed":
            reason = after.get("reason", "the job crashed")
            return f"it ended before its agent was in the room: {reason}."
        case "lost" if after.get("people") == "0":
            return f"its agent was lost before any person had come ({attempt.reason})."
        case "lost":
            return (
                "its agent was lost while a person was in the room, or about to come "
                f"({attempt.reason}); it was replaced."
            )
        case "left":
            return (
                f"its agent was leaving ({attempt.reason}) when a person came back; another one "
                "was sent."
            )
        case "waited":
            return f"it waited ({attempt.reason}); LiveKit was not asked."
        case "given_up":
            why = after.get("message") or after.get("reason") or attempt.reason
            return f"it was given up: {why}."
    return ""


def _answer_not_noted(events: list[TimelineEvent]) -> bool:
    names = [event.event for event in events]
    if "dispatching" not in names or "dispatched" in names:
        return False
    # The job was offered, so LiveKit had been asked, and the record is past that moment.
    offered = "accepted" in names or "joined" in names
    return offered and "adopted" not in names


def _of_events(dispatch: Dispatch) -> Iterator[tuple[int, str]]:
    refused: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for event in dispatch.timeline:
        if event.event == "rejected":
            server, container, reason = (
                event.detail.get(name, "") for name in ("agent_server_id", "container", "reason")
            )
            who = f"Agent server {server} (container {container})"
            refused[who, reason].append(event.at_ms)
        elif text := _sentence(event):
            yield event.at_ms, text
    for (who, reason), at_ms in refused.items():
        times = "" if len(at_ms) == 1 else f" {len(at_ms)} times"
        yield at_ms[0], f"{who} refused the job{times}: {reason}."


def _sentence(event: TimelineEvent) -> str:
    usual = {"agent_identity": "", "by": "hand", "message": "", "reason": "it fell silent"}
    detail = {**usual, **event.detail}
    if event.event == "restored":
        by = event.detail.get("by", "")
        detail["by"] = _WRITERS.get(by, by)
    return _EVENTS.get(event.event, "").format(**detail)


def _slow_look(dispatch: Dispatch) -> Iterator[tuple[int, str]]:
    connected: dict[int, int] = {}
    for event in dispatch.timeline:
        if event.event == "agent_connected":
            connected.setdefault(event.generation, event.at_ms)
        elif event.event == "joined":
            late_ms = event.at_ms - connected.get(event.generation, event.at_ms)
            if late_ms >= SLOW_LOOK_MS:
                yield (
                    event.at_ms,
                    f"The agent was connected for {seconds(late_ms)} before that was verified: "
                    "the verification's message was lost, or the verify workers were away or busy.",
                )
