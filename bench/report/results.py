"""Look-ups of one contender's samples among all results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.contenders import CONTENDERS
from bench.procfiles import Kind

Session = Mapping[str, Any]


@dataclass(frozen=True)
class Results:
    """The results by measurement and key of the unit."""

    raw: Mapping[str, Mapping[str, Any]]

    def of(self, measure: str) -> Mapping[str, Any]:
        """Results by key; nothing where it was not measured."""
        return self.raw.get(measure, {})

    def joins(self, contender: str, kind: Kind = Kind.SLOTS) -> list[Session]:
        """Every session of `join` with agent servers of that kind."""
        return [
            session
            for key, result in self.of("join").items()
            if key.split("/")[::2] == [kind, contender]
            for session in result["sessions"]
        ]

    def time_to_join_s(self, contender: str, kind: Kind = Kind.SLOTS) -> list[float]:
        """From request to ACTIVE, one at a time."""
        return seconds(self.joins(contender, kind), "active_ms")

    def sounds(self, contender: str) -> list[Mapping[str, Any]]:
        """Every session of `sound`."""
        found = self.of("sound").items()
        return [result for key, result in found if key.split("/")[1] == contender]

    def bursts(self, kind: Kind, count: int, contender: str) -> list[Sequence[Session]]:
        """The sessions of each burst of that kind and size."""
        return [
            result["sessions"]
            for key, result in self.of("burst").items()
            if _burst(key) == (kind, count, contender)
        ]

    def burst_cpu_s(self, kind: Kind, count: int, contender: str) -> dict[str, float]:
        """CPU seconds by program, the mean of these bursts."""
        found = [
            result["cpu_s"]
            for key, result in self.of("burst").items()
            if _burst(key) == (kind, count, contender) and "cpu_s" in result
        ]
        return {
            program: sum(one.get(program, 0.0) for one in found) / len(found)
            for program in (found[0] if found else ())
        }

    def burst_sizes(self, kind: Kind) -> list[int]:
        """Return the sizes that were measured."""
        return sorted({n for k, n, _ in map(_burst, self.of("burst")) if k is kind})

    def answers_at_once_ms(self, count: int, contender: str) -> list[float]:
        """HTTP answer times in bursts of that size, with agents."""
        return [
            session["answered_ms"]
            for burst in self.bursts(Kind.SLOTS, count, contender)
            for session in burst
            if "error" not in session
        ]

    def lags_ms(self, contender: str) -> list[float]:
        """From ACTIVE to the contender knowing it: one at a time, and in the stream."""
        sessions = [*self.joins(contender), *self.stream(contender).get("sessions", ())]
        return [
            session["noticed_ms"] - session["active_ms"]
            for session in sessions
            if session["noticed_ms"] is not None and session["active_ms"] is not None
        ]

    def stream(self, contender: str, per_s: int = 1) -> Mapping[str, Any]:
        """The stretch of that contender with so many sessions a second."""
        found: Mapping[str, Any] = self.of("stream").get(f"{per_s}/{contender}", {})
        return found

    def paces(self) -> dict[str, list[Mapping[str, Any]]]:
        """The bursts of `pacing` by pace."""
        found: dict[str, list[Mapping[str, Any]]] = {}
        for key, result in self.of("pacing").items():
            found.setdefault(key.split("/", 1)[1], []).append(result)
        return found

    def http(self, contender: str) -> list[Mapping[str, Any]]:
        """The stretches of `http`."""
        found = self.of("http").items()
        return [result for key, result in found if key.split("/")[1] == contender]

    def backlog(self) -> Mapping[str, Any] | None:
        """The one backlog."""
        return next(iter(self.of("backlog").values()), None)

    def each_unit(self) -> Iterator[Mapping[str, Any]]:
        """Every result of every measurement."""
        for results in self.raw.values():
            yield from results.values()


def measured(results: Results, kind: Kind = Kind.SLOTS) -> list[str]:
    """Those contenders of which a session of `join` got its agent."""
    return [name for name in CONTENDERS if results.time_to_join_s(name, kind)]


def seconds(sessions: Sequence[Session], field: str) -> list[float]:
    """Return that field of the sessions that have it, in seconds."""
    return [session[field] / 1000 for session in sessions if session.get(field) is not None]


def last_s(burst: Sequence[Session]) -> float | None:
    """When the last agent of a burst was there, from the first request; None if none came.

    The sessions' times are from their own requests, which come within a few milliseconds.
    """
    return max(seconds(burst, "active_ms"), default=None)


def exactly_one(burst: Sequence[Session]) -> int:
    """Count the sessions with exactly one agent."""
    return sum(session["agents"] == 1 for session in burst)


def _burst(key: str) -> tuple[Kind, int, str]:
    kind, _, count, contender = key.split("/")
    return Kind(kind), int(count), contender
