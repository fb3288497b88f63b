"""Metrics of sessions and agents: windows, histograms, counts and rates. Pure.

The ledger's steps count (`lua/counting.lua`), `ledger/statistics.py` reads, and docs/metrics.md
explains each number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from dispatcher.domain.models import State

_MINUTE_MS: Final = 60_000
_QUARTER_MS: Final = 15 * _MINUTE_MS


class Window(StrEnum):
    """The time over which something is counted; `Figures.since_ms` says when it began exactly."""

    MINUTES = "5m"
    HOUR = "1h"
    DAY = "1d"
    ALL = "all"  # since Redis was empty

    @property
    def minutes(self) -> int:
        """Length in minutes; 0 for all."""
        return {"5m": 5, "1h": 60, "1d": 1440, "all": 0}[self.value]

    @property
    def hashes(self) -> int:
        """Greatest number of hashes that the window spans, for each client and container."""
        return {"5m": 7, "1h": 61, "1d": 112, "all": 1}[self.value]

    @property
    def bucket_ms(self) -> int:
        """Bucket at whose start the window begins; it is up to one bucket longer than its name."""
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
        "time_to_join": _JOIN_MS,  # request -> joined
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

# The states of a session that has not ended, in the order in which pages show them. A state's place
# here is its score in `usher:sessions:<client>` too (`ledger/scripts.py`), which limits compare: a
# new state between two others is a change to live data.
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
    """A distribution: `counts[i]` are the values up to `bounds[i]`, the last those above all."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]  # not cumulative
    total: int  # the sum of `counts`
    sum: float  # the sum of the values

    @property
    def mean(self) -> float | None:
        """The exact mean; None with no values."""
        return self.sum / self.total if self.total else None

    def quantile(self, q: float) -> float | None:
        """Estimate the `q` quantile (`q` from 0 to 1) from the buckets; None with no values.

        Values count as evenly spread within a bucket, as Prometheus does it. Above all bounds the
        answer is the greatest bound.
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
    """One client's numbers over a window.

    Each session counts once in `sessions_joined` or `sessions_failed`.
    """

    client_id: str
    dispatches: int = 0
    joined: int = 0  # joins of an agent, a replacement's too
    sessions_joined: int = 0  # sessions that got an agent
    sessions_failed: int = 0  # those that never got one
    sessions_lost: int = 0  # of `sessions_joined`: those that failed after losing their agent
    ended: int = 0
    cancelled: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)  # ends without an agent, by reason
    attempts: int = 0  # requests to LiveKit for an agent
    dispatched: int = 0  # those that LiveKit has accepted
    agents_lost: int = 0  # while a person was in the room, or about to come
    idle_agents_lost: int = 0  # before any person had come
    agents_crashed: int = 0  # raised or died before they had joined
    surplus_agents: int = 0
    foreign_agents: int = 0  # of the same name, sent by another backend, and removed from the room
    redispatches: int = 0
    restored: int = 0  # of `dispatches`: restored from a process's memory after an outage of Redis
    webhooks_delivered: int = 0
    webhook_failures: int = 0
    webhooks_dead: int = 0
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    states: Mapping[State, int] = field(default_factory=dict)  # of this moment, not ended

    @property
    def failures(self) -> int:
        """Number of failures, of any reason."""
        return sum(self.failed.values())

    @property
    def served(self) -> int:
        """Sessions that got an agent and did not fail after losing it."""
        return max(0, self.sessions_joined - self.sessions_lost)  # it may have joined before

    @property
    def unserved(self) -> int:
        """Sessions that failed."""
        return self.sessions_failed + self.sessions_lost

    @property
    def success_rate(self) -> float | None:
        """Share of the finished sessions that got an agent; None with no session."""
        return _rate(self.served, self.served + self.unserved)


@dataclass(frozen=True, kw_only=True)
class AgentFigures:
    """The answers of the agent servers of one client, container and agent name, over a window."""

    client_id: str  # empty for jobs that another dispatcher has made
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
    """The numbers of all requested clients, as of one moment of Redis's clock."""

    at_ms: int
    window: Window
    since_ms: int  # 0 for all
    clients: tuple[ClientFigures, ...]
    agents: tuple[AgentFigures, ...]


@dataclass(frozen=True, kw_only=True)
class AgentCounts:
    """Increments of an agent server's counters in the hash `key`."""

    key: str
    increments: Mapping[str, int]


NOTHING_COUNTED: Final = AgentCounts(key="", increments={})


def percent(rate: float | None) -> str:
    """Format a rate for people; `n/a` where it is None."""
    return "n/a" if rate is None else f"{100 * rate:.1f} %"


def histogram(name: str, counters: Mapping[str, int]) -> Histogram:
    """Return the histogram `name` from the fields `<name>:<bound>`, `<name>:inf`, `<name>:sum`."""
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


# The fields that have a counter of the same name: all numbers.
_CLIENT_COUNTERS: Final = [each.name for each in fields(ClientFigures) if each.default == 0]
_AGENT_COUNTERS: Final = [each.name for each in fields(AgentFigures) if each.default == 0]


def client_figures(
    client_id: str, counters: Mapping[str, int], states: Mapping[State, int]
) -> ClientFigures:
    """Return one client's figures from its counters."""
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
    """Return the figures of one client's agent servers in one container, from their counters."""
    return AgentFigures(
        client_id=client_id,
        container=container,
        agent_name=agent_name,
        accept_reasons=_by_reason("accepts:", counters),
        reject_reasons=_by_reason("rejects:", counters),
        **{name: counters.get(name, 0) for name in _AGENT_COUNTERS},
    )
