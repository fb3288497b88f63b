"""An independent count of the statistics, from the records alone.

Every record is read as Redis holds it, and its course is followed through its timeline, event by
event.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

import redis

from dispatcher.domain.metrics import BOUNDS, ClientFigures
from dispatcher.domain.models import TERMINAL, State

_COUNTED: Final = {
    "queued": "dispatches",
    "restored": "dispatches",
    "superseded": "dispatches",
    "joined": "joined",
    "ended": "ended",
    "cancelled": "cancelled",
    "cancelled_by_client": "cancelled",
    "redispatch": "redispatches",
    "agent_crashed": "agents_crashed",
    "surplus_agent": "surplus_agents",
    "foreign_agent": "foreign_agents",
}
_QUEUED_BY: Final = frozenset(
    {"requeued", "redispatch", "agent_lost", "agent_crashed", "came_back"}
)


@dataclass
class Recount:
    """The numbers of one client."""

    counts: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)
    states: Counter[State] = field(default_factory=Counter)
    values: dict[str, list[int]] = field(default_factory=lambda: {name: [] for name in BOUNDS})


def recount(client: redis.Redis) -> dict[str, Recount]:
    """Count every client's numbers from its records."""
    found: dict[str, Recount] = {}
    parked = client.hgetall("usher:parked")
    for key in client.scan_iter("usher:dispatch:*"):
        if key.count(":") == 2:
            record = client.hgetall(key)
            timeline = [json.loads(text) for text in client.lrange(f"{key}:timeline", 0, -1)]
            mine = found.setdefault(record["client_id"], Recount())
            _count(mine, record, timeline, client.hgetall(f"{key}:attempts"))
            state = State(record["state"])
            if state not in TERMINAL and key.rpartition(":")[2] not in parked:
                mine.states[state] += 1
    return found


def _count(
    mine: Recount,
    record: dict[str, str],
    timeline: list[dict[str, Any]],
    attempts: dict[str, str],
) -> None:
    tries = [int(value) for name, value in attempts.items() if name.endswith(".tries")]
    mine.counts["attempts"] += sum(tries)
    assert "timeline_dropped" not in record, "the walk is too long for this"
    way = _Way(mine, int(record["created_at_ms"]))
    for event in timeline:
        way.go(event)


class _Way:
    """The course of one session, through its timeline."""

    def __init__(self, mine: Recount, requested_at: int) -> None:
        self._mine = mine
        self._queued_at: int | None = requested_at
        self._first_generation, self._tries, self._measured = 1, 0, False
        self._generation = 0
        self._at: dict[str, int] = {}  # when each stage of this generation began
        self._told: set[int] = set()  # generations whose tries are known

    def go(self, event: dict[str, Any]) -> None:
        name, at, generation = event["event"], event["at_ms"], event["generation"]
        if name in ("restored", "superseded"):
            self._queued_at = self._queued_at if event["detail"].get("state") == "queued" else None
            self._first_generation = 1
            self._mine.counts["restored"] += name == "restored"
        if generation != self._generation:
            self._generation, self._at = generation, {}
        if name in _QUEUED_BY:
            self._queued_at = at
        if name == "redispatch":
            self._first_generation, self._tries, self._measured = generation, 0, False
        if name in _COUNTED:
            self._mine.counts[_COUNTED[name]] += 1
        if name == "agent_lost":
            idle = event["detail"].get("people") == "0"
            self._mine.counts["idle_agents_lost" if idle else "agents_lost"] += 1
        self._stages(name, at, event["detail"])
        if "tries" in event["detail"]:
            self._tries += int(event["detail"]["tries"])
            # That event is the first of the next generation.
            self._told.add(generation - (name == "livekit_unreachable"))
        self._result(name, event)
        if name == "waiting":
            self._queued_at = None

    def _took(self, stage: str, ms: int) -> None:
        self._mine.values[stage].append(max(0, ms))

    def _stages(self, name: str, at: int, detail: dict[str, str]) -> None:
        begun = self._at
        if name == "dispatching":
            if self._queued_at is not None:
                self._took("queue_wait", at - self._queued_at)
            begun["dispatching"] = at
        elif name == "dispatched" and "dispatched" not in begun:
            begun["dispatched"] = at
            self._mine.counts["dispatched"] += 1
            self._since("dispatching", "dispatch", at)
            self._since("offered", "offer", 0)
        elif name == "offered" and "offered" not in begun:
            begun["offered"] = at
            self._since("dispatched", "offer", at)
        elif name in ("accepted", "adopted"):
            self._since("offered", "accept", at)
            begun["accepted"] = at
        elif name == "joined":
            self._took("time_to_join", int(detail["time_to_join_ms"]))
            self._since("accepted", "join", int(detail["joined_at_ms"]))
        if name in ("dispatching", "accepted", "adopted"):
            self._queued_at = None

    def _since(self, begin: str, stage: str, till: int) -> None:
        if begin in self._at:
            self._took(stage, till - self._at[begin])

    def _result(self, name: str, event: dict[str, Any]) -> None:
        if name == "failed":
            self._mine.failed[event["detail"]["reason"]] += 1
            self._mine.counts["sessions_lost" if self._measured else "sessions_failed"] += 1
        if name == "joined" and not self._measured:
            self._mine.counts["sessions_joined"] += 1
        ends = ("joined", "ended", "failed", "cancelled", "cancelled_by_client", "superseded")
        if name == "superseded":
            self._mine.counts["cancelled"] += 1
        left = name == "agent_left" and event["detail"].get("state") == "ended"
        if left:
            self._mine.counts["ended"] += 1
        if (name in ends or left) and not self._measured:
            self._measured = True
            generation = event["generation"]
            # A request to LiveKit that has no answer yet is a try, too.
            asked = "dispatching" in self._at and "dispatched" not in self._at
            self._took("generations", generation - self._first_generation + 1)
            self._took("tries", self._tries + (asked and generation not in self._told))


def differences(found: ClientFigures, mine: Recount) -> list[str]:
    """Return where the statistics differ from the recount."""
    wrong = [
        f"{name}: counted {getattr(found, name)}, happened {mine.counts[name]}"
        for name in (
            *("dispatches", "joined", "ended", "cancelled", "attempts", "dispatched"),
            *("sessions_joined", "sessions_failed", "sessions_lost"),
            *("agents_lost", "idle_agents_lost"),
            *("agents_crashed", "surplus_agents", "foreign_agents"),
            *("redispatches", "restored"),
        )
        if getattr(found, name) != mine.counts[name]
    ]
    if dict(found.failed) != dict(mine.failed):
        wrong.append(f"failed: counted {dict(found.failed)}, happened {dict(mine.failed)}")
    states = {state: count for state, count in found.states.items() if count}
    if states != dict(mine.states):
        wrong.append(f"states: counted {states}, are {dict(mine.states)}")
    for name, values in mine.values.items():
        counted = found.histograms[name]
        buckets = [0] * len(counted.counts)
        for value in values:
            buckets[sum(bound < value for bound in counted.bounds)] += 1
        if (list(counted.counts), counted.sum) != (buckets, sum(values)):
            wrong.append(f"{name}: counted {counted}, happened {sorted(values)}")
    return wrong
