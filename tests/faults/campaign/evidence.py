"""The journals of a round, read: events in, values with times out; pure.

Times are seconds since the epoch: all processes of a campaign share one machine's clock.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from .journal import Event
from .liveness import Liveness
from .plan import ANSWERS, NEIGHBOURS, Behaviour, Kind, Person


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
    killed: bool
    frozen: bool
    until: float  # when a frozen process went on, the drain time was over, or Redis worked again
    room: str = ""  # of a foreign dispatch
    how: str = ""  # which garbage, or which error of Redis's
    spoiled: int = 0  # answers that were garbage

    @property
    def name(self) -> str:
        """What the report calls it."""
        return f"{self.kind}: {self.how}" if self.how else str(self.kind)


@dataclass(frozen=True, kw_only=True)
class Echo:
    """An agent has given a person's word back."""

    at: float
    agent: str
    word: int


@dataclass(kw_only=True)
class Stay:
    """One person in the room without a break, and what it was answered in that time."""

    who: str
    start: float
    end: float
    back_after_s: float | None = None  # it had left on purpose, and asked again after this time
    left_at: float = 0.0  # when it had
    echoes: list[Echo] = field(default_factory=list)

    @property
    def span(self) -> Span:
        return Span(start=self.start, end=self.end)


@dataclass(kw_only=True)
class Room:
    """All that is known of one session."""

    name: str
    person: Person = Person.STAYS
    behaviour: Behaviour = Behaviour.PLAIN
    starts_in_s: float = 0.0  # that each of its agents takes by itself before it connects
    answers: list[Answer] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    views: list[View] = field(default_factory=list)
    final_agents: Mapping[str, int] | None = None
    gave_up_at: list[float] = field(default_factory=list)  # of asking, without having been accepted

    @property
    def accepted(self) -> list[Answer]:
        return [answer for answer in self.answers if answer.status == 200]

    def stay_at(self, at: float) -> Stay | None:
        """A person who was in the room at that time."""
        return next((stay for stay in self.stays if stay.start <= at < stay.end), None)

    def echoes_of(self, who: str) -> list[Echo]:
        """All that this person was answered, in order."""
        return [echo for stay in self.stays if stay.who == who for echo in stay.echoes]


@dataclass(kw_only=True)
class Neighbour:
    """What the other tenant was answered, and what the product says of its sessions at the end."""

    answers: list[Answer] = field(default_factory=list)
    records: dict[str, tuple[str, str]] = field(default_factory=dict)  # id -> (state, reason)


@dataclass(frozen=True, kw_only=True)
class Exit:
    """A process that ended by itself."""

    at: float
    program: str
    how: str


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
    neighbour: Neighbour
    exits: list[Exit]
    missing: list[str]  # what did not work once all faults were over


def read_evidence(
    driver: Iterable[Event], agents: Iterable[Event], neighbours: Iterable[Event] = ()
) -> Evidence:
    """Put the driver's journal, the agents' log and the neighbour's journal together."""
    reader = _Reader()
    for event in driver:
        reader.take(event)
    for event in neighbours:
        reader.take_neighbours(event)
    for event in agents:
        reader.liveness.take(event)
    return reader.evidence()


class _Reader:
    def __init__(self) -> None:
        self.liveness = Liveness()
        self._rooms: dict[str, Room] = {}
        self._asked: dict[int, Event] = {}
        self._there: dict[tuple[str, str], Stay] = {}
        self._left_at: dict[tuple[str, str], float] = {}
        self._faults: dict[int, Injected] = {}
        self._records: dict[str, Event] = {}
        self._lags: list[Span] = []
        self._neighbour = Neighbour()
        self._exits: list[Exit] = []
        self._missing: list[str] = []
        self._first: float | None = None
        self._last = 0.0

    def take(self, event: Event) -> None:
        self._first = event["t"] if self._first is None else self._first
        self._last = event["t"]
        getattr(self, f"_on_{event['event']}", lambda _: None)(event)

    def evidence(self) -> Evidence:
        for stay in self._there.values():
            stay.end = self._last
        return Evidence(
            started_at=self._first or 0.0,
            ended_at=self._last,
            rooms=self._rooms,
            faults=sorted(self._faults.values(), key=lambda fault: fault.at),
            liveness=self.liveness,
            records=self._records,
            lags=self._lags,
            neighbour=self._neighbour,
            exits=self._exits,
            missing=self._missing,
        )

    def take_neighbours(self, event: Event) -> None:
        self._neighbour.answers.append(
            Answer(
                asked_at=event["t"] - event["took_s"],
                took_s=event["took_s"],
                status=event["status"],
                dispatch_id=event["dispatch_id"],
            )
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

    def _on_visit(self, event: Event) -> None:
        room = self._room(event["room"])
        room.person, room.behaviour = Person(event["person"]), Behaviour(event["agent"])
        room.starts_in_s = event["starts_in_s"]

    def _on_present(self, event: Event) -> None:
        key = event["room"], event.get("who", "")
        if key in self._there:
            return
        stay = Stay(
            who=key[1],
            start=event["t"],
            end=event["t"],
            back_after_s=event.get("back_after_s"),
            left_at=self._left_at.get(key, 0.0),
        )
        self._there[key] = stay
        self._room(key[0]).stays.append(stay)

    def _on_absent(self, event: Event) -> None:
        key = event["room"], event.get("who", "")
        if stay := self._there.pop(key, None):
            stay.end = event["t"]
            self._left_at[key] = event["t"]

    def _on_echo(self, event: Event) -> None:
        # One that is read after the person has left is no answer any more.
        if stay := self._there.get((event["room"], event.get("who", ""))):
            echo = Echo(at=event["t"], agent=event["agent"], word=event["word"])
            stay.echoes.append(echo)

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
            frozen=event["signal"] == "STOP",
            room=event.get("room", ""),
            until=event["t"] + event["hold_s"],
            how=event["signal"]
            if event["kind"] in ANSWERS and event["kind"] not in NEIGHBOURS
            else "",
        )
        if killed:
            self.liveness.killed(event["pids"], event["t"])
        elif event["signal"] == "TERM":
            self.liveness.stopped(event["pids"], event["t"])

    def _on_fault_over(self, event: Event) -> None:
        number = event["fault"]
        self._faults[number] = replace(
            self._faults[number], until=event["t"], spoiled=event.get("spoiled", 0)
        )

    def _on_gave_up_asking(self, event: Event) -> None:
        self._room(event["room"]).gave_up_at.append(event["t"])

    def _on_neighbour_record(self, event: Event) -> None:
        self._neighbour.records[event["dispatch_id"]] = event["state"], event["reason"]

    def _on_exited(self, event: Event) -> None:
        self._exits.append(Exit(at=event["at"], program=event["program"], how=event["how"]))

    def _on_healed(self, event: Event) -> None:
        self._missing = event["missing"]

    def _on_record(self, event: Event) -> None:
        self._records[event["dispatch_id"]] = event

    def _on_lag(self, event: Event) -> None:
        self._lags.append(Span(start=event["t"] - event["lag_s"], end=event["t"]))
