"""What is counted about sessions and agents, and what do the numbers say?

Only values and pure functions. The numbers come into being inside the ledger's steps
(`lua/counting.lua`) and are read by `ledger/statistics.py`; docs/metrics.md says what each of them
means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from dispatcher.domain.models import State

_MINUTE_MS: Final = 60_000
_QUARTER_MS: Final = 15 * _MINUTE_MS


class Window(StrEnum):
    """Over which time something is counted; `Figures.since_ms` says when that began exactly."""

    MINUTES = "5m"
    HOUR = "1h"
    DAY = "1d"
    ALL = "all"  # since Redis was empty

    @property
    def minutes(self) -> int:
        """Its length; 0 for all."""
        return {"5m": 5, "1h": 60, "1d": 1440, "all": 0}[self.value]

    @property
    def hashes(self) -> int:
        """How many hashes it is made of, at the most, for each client and container."""
        return {"5m": 7, "1h": 61, "1d": 112, "all": 1}[self.value]

    @property
    def bucket_ms(self) -> int:
        """On what it begins: it is as long as its name says, and up to one such bucket longer."""
        return _QUARTER_MS if self is Window.DAY else _MINUTE_MS


_STAGE_MS: Final = (1, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000, 20_000, 60_000)
_JOIN_MS: Final = (
    *(50, 100, 150, 200, 300, 400, 500, 750, 1000, 1500, 2000, 3000, 5000, 7500),
    *(10_000, 20_000, 60_000),
)
_COUNTS: Final = (1, 2, 3, 4, 5, 8, 12, 20)

# The upper bounds of each histogram: times in ms, and numbers per session.
BOUNDS: Final[Mapping[str, tuple[int, ...]]] = MappingProxyType(
    {
        "time_to_join": _JOIN_MS,  # asked for -> in the room
        "queue_wait": _STAGE_MS,  # queued -> dispatching
        "dispatch": _STAGE_MS,  # dispatching -> dispatched
        "offer": _STAGE_MS,  # dispatched -> offered
        "accept": _STAGE_MS,  # offered -> accepted
        "join": _STAGE_MS,  # accepted -> joined
        "generations": _COUNTS,
        "tries": _COUNTS,
    }
)
TIMES: Final = tuple(name for name in BOUNDS if name not in ("generations", "tries"))

# The states of a session that has not ended, in the order in which people read them.
OPEN_STATES: Final = (
    State.QUEUED,
    State.WAITING,
    State.DELEGATED,
    State.DISPATCHING,
    State.DISPATCHED,
    State.OFFERED,
    State.ACCEPTED,
    State.JOINED,
    State.LEAVING,
)


def _rate(part: int, whole: int) -> float | None:
    return part / whole if whole else None


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """How values are spread: `counts[i]` are those up to `bounds[i]`, the last those above all.

    `counts` are not cumulative; `total` is their sum, `sum` that of the values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: int
    sum: float

    @property
    def mean(self) -> float | None:
        """The exact mean; None with no values."""
        return self.sum / self.total if self.total else None

    def quantile(self, q: float) -> float | None:
        """The value below which a share `q` lies, as far as the buckets tell; None with no values.

        Within a bucket the values are taken to be evenly spread, as Prometheus does; for those
        above all bounds the answer is the greatest bound.
        """
        if not self.total:
            return None
        rank, below, lower = q * self.total, 0, 0.0
        for bound, count in zip(self.bounds, self.counts, strict=False):
            if count and below + count >= rank:
                return lower + (bound - lower) * max(0.0, rank - below) / count
            below, lower = below + count, bound
        return self.bounds[-1]


@dataclass(frozen=True, kw_only=True)
class ClientFigures:
    """One client's numbers over a window; `states` alone is of this moment.

    `joined` counts every time that an agent came in (also in place of one that was lost), `failed`
    every end without one, by reason. Of sessions, each once: `sessions_joined` got an agent,
    `sessions_failed` never did, and of the former `sessions_lost` failed later, when theirs was
    lost. `states` has the sessions that have not ended.
    """

    client_id: str
    dispatches: int = 0
    joined: int = 0
    sessions_joined: int = 0
    sessions_failed: int = 0
    sessions_lost: int = 0
    ended: int = 0
    cancelled: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)
    attempts: int = 0  # requests to LiveKit for an agent
    dispatched: int = 0  # those that LiveKit has answered with yes
    agents_lost: int = 0  # while a person was in the room, or about to come
    idle_agents_lost: int = 0  # before any person had come
    agents_crashed: int = 0  # raised or died before they were in the room
    surplus_agents: int = 0
    foreign_agents: int = 0  # of the same name, sent by another backend; each put out
    redispatches: int = 0
    restored: int = 0  # of `dispatches`: written from somebody's memory, after an outage of Redis
    webhooks_delivered: int = 0
    webhook_failures: int = 0
    webhooks_dead: int = 0
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    states: Mapping[State, int] = field(default_factory=dict)

    @property
    def failures(self) -> int:
        """How many have failed, for whatever reason."""
        return sum(self.failed.values())

    @property
    def served(self) -> int:
        """Sessions that got an agent and did not fail for want of one later."""
        return max(0, self.sessions_joined - self.sessions_lost)  # it may have joined before

    @property
    def unserved(self) -> int:
        """Sessions that failed."""
        return self.sessions_failed + self.sessions_lost

    @property
    def success_rate(self) -> float | None:
        """Of the sessions that came to a result the share that got an agent; None with none."""
        return _rate(self.served, self.served + self.unserved)


@dataclass(frozen=True, kw_only=True)
class AgentFigures:
    """What the agent servers of one client, container and agent name have answered, over a window.

    The client id is empty for jobs that are not our dispatcher's.
    """

    client_id: str
    container: str
    agent_name: str
    accept_reasons: Mapping[str, int] = field(default_factory=dict)
    reject_reasons: Mapping[str, int] = field(default_factory=dict)
    joins: int = 0
    leaves: int = 0
    adoptions: int = 0
    assignment_timeouts: int = 0

    @property
    def accepts(self) -> int:
        """Jobs that were accepted."""
        return sum(self.accept_reasons.values())

    @property
    def rejects(self) -> int:
        """Jobs that were rejected."""
        return sum(self.reject_reasons.values())

    @property
    def requests(self) -> int:
        """Jobs that were answered."""
        return self.accepts + self.rejects

    @property
    def acceptance_rate(self) -> float | None:
        """Accepts / requests; None with no request."""
        return _rate(self.accepts, self.requests)

    @property
    def rejection_rate(self) -> float | None:
        """Rejects / requests; None with no request."""
        return _rate(self.rejects, self.requests)


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The numbers of all clients that were asked for, as of one moment of Redis's clock."""

    at_ms: int
    window: Window
    since_ms: int  # 0 for all
    clients: tuple[ClientFigures, ...]
    agents: tuple[AgentFigures, ...]


@dataclass(frozen=True, kw_only=True)
class AgentCounts:
    """Increments of an agent server's counters; `key` is the hash that they are in."""

    key: str
    increments: Mapping[str, int]


NOTHING_COUNTED: Final = AgentCounts(key="", increments={})


def percent(rate: float | None) -> str:
    """A rate as people read it; `n/a` where there was nothing to take a share of."""
    return "n/a" if rate is None else f"{100 * rate:.1f} %"


def histogram(name: str, counters: Mapping[str, int]) -> Histogram:
    """The histogram `name` from a hash's fields `<name>:<bound>`, `<name>:inf`, `<name>:sum`."""
    bounds = BOUNDS[name]
    counts = tuple(counters.get(f"{name}:{bound}", 0) for bound in (*bounds, "inf"))
    return Histogram(
        bounds=tuple(float(bound) for bound in bounds),
        counts=counts,
        total=sum(counts),
        sum=float(counters.get(f"{name}:sum", 0)),
    )


def _by_reason(prefix: str, counters: Mapping[str, int]) -> dict[str, int]:
    found = {
        name.removeprefix(prefix): value
        for name, value in counters.items()
        if name.startswith(prefix) and value
    }
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


_CLIENT_COUNTERS: Final = (
    *("dispatches", "joined", "sessions_joined", "sessions_failed", "sessions_lost", "ended"),
    *("cancelled", "attempts", "dispatched", "agents_lost", "idle_agents_lost"),
    *("agents_crashed", "surplus_agents", "foreign_agents", "redispatches", "restored"),
    *("webhooks_delivered", "webhook_failures", "webhooks_dead"),
)
_AGENT_COUNTERS: Final = ("joins", "leaves", "adoptions", "assignment_timeouts")


def client_figures(
    client_id: str, counters: Mapping[str, int], states: Mapping[State, int]
) -> ClientFigures:
    """One client's figures from its counters."""
    return ClientFigures(
        client_id=client_id,
        failed=_by_reason("failures:", counters),
        histograms={name: histogram(name, counters) for name in BOUNDS},
        states={state: states.get(state, 0) for state in OPEN_STATES},
        **{name: counters.get(name, 0) for name in _CLIENT_COUNTERS},
    )


def agent_figures(
    client_id: str, container: str, agent_name: str, counters: Mapping[str, int]
) -> AgentFigures:
    """The figures of one client's agent servers in one container, from their counters."""
    return AgentFigures(
        client_id=client_id,
        container=container,
        agent_name=agent_name,
        accept_reasons=_by_reason("accepts:", counters),
        reject_reasons=_by_reason("rejects:", counters),
        **{name: counters.get(name, 0) for name in _AGENT_COUNTERS},
    )
