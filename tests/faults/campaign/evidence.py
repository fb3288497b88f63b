"""What do the journals of a round say? Events in, values with times out; pure.

Times are seconds since the epoch: all processes of a campaign share one machine's clock.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .plan import Kind

Event = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Span:
    """A stretch of time."""

    start: float
    end: float

    @property
    def lasts_s(self) -> float:
        return self.end - self.start


@dataclass(frozen=True, kw_only=True)
class View:
    """What LiveKit listed in a room from `at` on: agents and when each joined, or no answer."""

    at: float
    agents: Mapping[str, int] | None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One HTTP request as its client saw it; status 0: no answer."""

    asked_at: float
    took_s: float
    status: int
    dispatch_id: str


@dataclass(frozen=True, kw_only=True)
class Injected:
    """A fault that was carried out."""

    at: float
    kind: Kind
    program: str
    pids: frozenset[int]
    killed: bool  # or frozen
    until: float  # when a frozen process went on


@dataclass(kw_only=True)
class Room:
    """All that is known of one session."""

    name: str
    answers: list[Answer] = field(default_factory=list)
    present: list[Span] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    final_agents: Mapping[str, int] | None = None

    @property
    def accepted(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status == 200]

    def was_there(self, at: float) -> bool:
        """True while the person was in the room."""
        return any(span.start <= at < span.end for span in self.present)


class Liveness:
    """When was which agent alive, by its own log and by who was killed?"""

    def __init__(self) -> None:
        self._started: dict[str, tuple[float, int]] = {}
        self._joined: dict[str, float] = {}
        self._agent_of_job: dict[str, str] = {}
        self._left: dict[str, float] = {}
        self._killed: dict[int, list[float]] = defaultdict(list)

    def take(self, event: Event) -> None:
        """Learn from one line of the agents' log."""
        job, at = event.get("job", ""), event["t"]
        if event["event"] == "agent_starts":
            self._started[event["agent"]] = (at, event["pid"])
            self._agent_of_job[job] = event["agent"]
        elif event["event"] == "agent_joined":
            self._joined[self._agent_of_job[job]] = at
        elif event["event"] in ("agent_left", "agent_disconnected") and job in self._agent_of_job:
            self._left.setdefault(self._agent_of_job[job], at)

    def killed(self, pids: Iterable[int], at: float) -> None:
        """Learn that these processes were killed."""
        for pid in pids:
            self._killed[pid].append(at)

    def alive(self, agent: str, at: float) -> bool:
        """False when its own log or a kill says that it was gone; one that LiveKit lists and
        nobody else knows counts as alive."""
        ended_at = self.ended_at(agent)
        return ended_at is None or at < ended_at

    def ended_at(self, agent: str) -> float | None:
        """When it left or was killed; None: not that anybody knows."""
        if agent not in self._started:
            return None
        started_at, pid = self._started[agent]
        killed = [at for at in self._killed.get(pid, ()) if at >= started_at]
        if agent in self._left:
            killed.append(self._left[agent])
        return min(killed, default=None)

    def alive_now(self, agent: str) -> bool:
        """As far as is known by now."""
        return self.alive(agent, time.time())

    def pid(self, agent: str) -> int:
        """The process in which that agent runs; 0: not known."""
        return self._started.get(agent, (0.0, 0))[1]

    def joined_at(self, agent: str) -> float | None:
        """When it had joined by its own word; a loaded machine lets it know long after LiveKit."""
        return self._joined.get(agent)

    def agents_alive_now(self) -> list[tuple[str, int]]:
        """Agents and their processes."""
        return [(agent, pid) for agent, (_, pid) in self._started.items() if self.alive_now(agent)]


@dataclass(kw_only=True)
class Evidence:
    """A round, as seen from outside; `records` are what the product itself says at the end."""

    started_at: float
    ended_at: float
    rooms: dict[str, Room]
    faults: list[Injected]
    liveness: Liveness
    records: dict[str, Event]  # dispatch id -> {"status": HTTP status, "body": record}
    lags: list[Span]  # when the driver itself was held up


def read_evidence(driver: Iterable[Event], agents: Iterable[Event]) -> Evidence:
    """Put the driver's journal and the agents' log together."""
    reader = _Reader()
    for event in driver:
        reader.take(event)
    for event in agents:
        reader.liveness.take(event)
    return reader.evidence()


class _Reader:
    def __init__(self) -> None:
        self.liveness = Liveness()
        self._rooms: dict[str, Room] = {}
        self._asked: dict[int, Event] = {}
        self._came: dict[str, float] = {}
        self._faults: dict[int, Injected] = {}
        self._records: dict[str, Event] = {}
        self._lags: list[Span] = []
        self._first: float | None = None
        self._last = 0.0

    def take(self, event: Event) -> None:
        self._first = event["t"] if self._first is None else self._first
        self._last = event["t"]
        getattr(self, f"_on_{event['event']}", lambda _: None)(event)

    def evidence(self) -> Evidence:
        for name, since in self._came.items():
            self._room(name).present.append(Span(start=since, end=self._last))
        return Evidence(
            started_at=self._first or 0.0,
            ended_at=self._last,
            rooms=self._rooms,
            faults=sorted(self._faults.values(), key=lambda fault: fault.at),
            liveness=self.liveness,
            records=self._records,
            lags=self._lags,
        )

    def _room(self, name: str) -> Room:
        return self._rooms.setdefault(name, Room(name=name))

    def _on_asks(self, event: Event) -> None:
        self._asked[event["ask"]] = event
        self._room(event["room"])

    def _on_answered(self, event: Event) -> None:
        self._room(event["room"]).answers.append(
            Answer(
                asked_at=self._asked[event["ask"]]["t"],
                took_s=event["took_s"],
                status=event["status"],
                dispatch_id=event["dispatch_id"],
            )
        )

    def _on_present(self, event: Event) -> None:
        self._came.setdefault(event["room"], event["t"])

    def _on_absent(self, event: Event) -> None:
        since = self._came.pop(event["room"], None)
        if since is not None:
            self._room(event["room"]).present.append(Span(start=since, end=event["t"]))

    def _on_listed(self, event: Event) -> None:
        self._room(event["room"]).views.append(View(at=event["t"], agents=event["agents"]))

    def _on_final(self, event: Event) -> None:
        self._room(event["room"]).final_agents = event["agents"]

    def _on_fault(self, event: Event) -> None:
        killed = event["signal"] == "KILL"
        self._faults[event["fault"]] = Injected(
            at=event["t"],
            kind=Kind(event["kind"]),
            program=event["program"],
            pids=frozenset(event["pids"]),
            killed=killed,
            until=event["t"] + event["hold_s"],
        )
        if killed:
            self.liveness.killed(event["pids"], event["t"])

    def _on_record(self, event: Event) -> None:
        self._records[event["dispatch_id"]] = event

    def _on_lag(self, event: Event) -> None:
        self._lags.append(Span(start=event["t"] - event["lag_s"], end=event["t"]))
