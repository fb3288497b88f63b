"""When each agent was alive, by the agents' own log and by what was done to their processes."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from .journal import Event

# livekit-agents' word to a job whose agent server ends it: because that stops, or because LiveKit
# says that the dispatch is deleted.
_ENDED_BY_SERVER = "parent process shutdown"
# How long after it was told to stop an agent server still ends jobs: its drain time, and the time
# that a job may take to end.
STOPS_WITHIN_S = 25.0


@dataclass(frozen=True, kw_only=True)
class Crash:
    """The entry point of an agent's program has failed: it raised, or did not connect."""

    at: float
    room: str
    agent: str


@dataclass(frozen=True, kw_only=True)
class _Life:
    room: str
    started_at: float
    pid: int


class Liveness:
    """When each agent was alive, by its own log and by what was killed."""

    def __init__(self) -> None:
        self._lives: dict[str, _Life] = {}
        self._joined: dict[str, float] = {}
        self._agent_of_job: dict[str, str] = {}
        self._left: dict[str, float] = {}
        self._ended_by_server: set[str] = set()
        self._stopped: dict[int, list[float]] = defaultdict(list)
        self._killed: dict[int, list[float]] = defaultdict(list)
        self._crashes: dict[str, Crash] = {}
        self._foreign: set[str] = set()
        self._deletes_room_at: dict[str, float] = {}

    def take(self, event: Event) -> None:
        """Learn from one line of the agents' log."""
        job, at, what = event.get("job", ""), event["t"], event["event"]
        if what == "agent_starts":
            agent = event["agent"]
            self._lives[agent] = _Life(room=event["room"], started_at=at, pid=event["pid"])
            self._agent_of_job[job] = agent
            if event.get("foreign"):
                self._foreign.add(agent)
        elif job not in self._agent_of_job:
            return
        agent = self._agent_of_job[job]
        if what == "agent_joined":
            self._joined[agent] = at
        elif what in ("agent_raises", "agent_returns"):
            self._crashes[agent] = Crash(at=at, room=self._lives[agent].room, agent=agent)
        elif what == "agent_deletes_room":
            self._deletes_room_at[agent] = at
        elif what in ("agent_left", "agent_disconnected"):
            self._left.setdefault(agent, at)
            if event.get("why") == _ENDED_BY_SERVER:
                self._ended_by_server.add(agent)

    def killed(self, pids: Iterable[int], at: float) -> None:
        """Learn that these processes were killed."""
        for pid in pids:
            self._killed[pid].append(at)

    def stopped(self, pids: Iterable[int], at: float) -> None:
        """Learn that an agent server with these processes was told to stop."""
        for pid in pids:
            self._stopped[pid].append(at)

    def alive(self, agent: str, at: float) -> bool:
        """False when its own log or a kill says that it was gone; one that only LiveKit knows
        counts as alive."""
        ended_at = self.ended_at(agent)
        return ended_at is None or at < ended_at

    def ended_at(self, agent: str) -> float | None:
        """When it left, failed or was killed; None: not that anything says so."""
        ends = [self._left.get(agent), self.died_at(agent)]
        return min((at for at in ends if at is not None), default=None)

    def died_at(self, agent: str) -> float | None:
        """When it was killed, failed, or lost its agent server: its end was not its own wish."""
        if agent not in self._lives:
            return None
        life = self._lives[agent]
        deaths = [at for at in self._killed.get(life.pid, ()) if at >= life.started_at]
        if self._lost_its_server(agent, life):
            deaths.append(self._left[agent])
        if agent in self._crashes:
            deaths.append(self._crashes[agent].at)
        # A process that ends of itself may be killed afterwards, or its number be another's.
        first = min(deaths, default=None)
        left_at = self._left.get(agent)
        return first if left_at is None or first is None or first <= left_at else None

    def _lost_its_server(self, agent: str, life: _Life) -> bool:
        return agent in self._ended_by_server and any(
            at <= self._left[agent] <= at + STOPS_WITHIN_S for at in self._stopped.get(life.pid, ())
        )

    def alive_now(self, agent: str) -> bool:
        """As far as is known by now."""
        return self.alive(agent, time.time())

    def pid(self, agent: str) -> int:
        """The process in which that agent runs; 0: not known."""
        return self._lives[agent].pid if agent in self._lives else 0

    def joined_at(self, agent: str) -> float | None:
        """When it had joined by its own word; a loaded machine lets it know long after LiveKit."""
        return self._joined.get(agent)

    def agents_alive_now(self) -> list[tuple[str, int]]:
        """Agents and their processes."""
        # From a thread, while the event loop adds more.
        return [
            (agent, life.pid) for agent, life in list(self._lives.items()) if self.alive_now(agent)
        ]

    def agents_of(self, room: str) -> set[str]:
        """Every agent that was started for that room."""
        return {agent for agent, life in self._lives.items() if life.room == room}

    def deleted(self, room: str) -> list[tuple[float, float]]:
        """When its agents deleted that room: from asking LiveKit to being out of it."""
        return [
            (at, max(at, self._left.get(agent, at)))
            for agent, at in self._deletes_room_at.items()
            if self._lives[agent].room == room
        ]

    def is_foreign(self, agent: str) -> bool:
        """True of an agent that Usher has not dispatched."""
        return agent in self._foreign

    @property
    def crashes(self) -> list[Crash]:
        return list(self._crashes.values())
