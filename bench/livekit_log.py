"""The times of joins, by LiveKit's own clock, and the calls to LiveKit, read from its log.

The log's times are in milliseconds and the same for every contender, and reading it costs the
server nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from bench import BenchError

_LOOK_EVERY_S: Final = 0.01
_KINDS: Final = {
    "participant active": "active",
    "assigned job to worker": "assigned",
    "job ended": "ended",
}


@dataclass(frozen=True, kw_only=True)
class LogEvent:
    """One line that we want to know of. `what`: active, assigned, ended, or call."""

    what: str
    at_ms: float
    room: str
    name: str  # a participant's identity, a job's id, or the called method


def parse(line: str) -> LogEvent | None:
    """Parse the event in a line of the log, if it is one of those that are measured."""
    parts = line.rstrip("\n").split("\t", 5)
    if len(parts) < 6:
        return None
    at, message, text = parts[0], parts[4], parts[5]
    what = _KINDS.get(message) or ("call" if message.startswith("API ") else "")
    if not what:
        return None
    try:
        fields = json.loads(text)
        at_ms = datetime.fromisoformat(at.replace("Z", "+00:00")).astimezone(UTC).timestamp() * 1000
    except ValueError:
        return None
    if what == "call":
        name = fields.get("method", "")
    else:
        name = fields.get("participant") or fields.get("jobID", "")
    room = fields.get("room", "")  # ListRooms names several
    return LogEvent(what=what, at_ms=at_ms, room=room if isinstance(room, str) else "", name=name)


class Tail:
    """The new lines of a file, through its rotations."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open(errors="replace")
        self._rest = ""

    def skip(self) -> None:
        """Leave out what is there already."""
        self._file.seek(0, 2)

    def news(self) -> list[str]:
        """Every line that has been completed since the last time."""
        text = self._rest + self._file.read()
        try:
            moved = self._path.stat().st_ino != _inode(self._file.fileno())
        except FileNotFoundError:
            moved = False  # it is just being rotated
        if moved:
            with contextlib.suppress(FileNotFoundError):  # looked at again the next time
                new = self._path.open(errors="replace")
                text += self._file.read()
                self._file.close()
                self._file = new
                text += self._file.read()
        *lines, self._rest = text.split("\n")
        return lines

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _inode(descriptor: int) -> int:
    return os.fstat(descriptor).st_ino


class LiveKitLog:
    """The events that LiveKit has logged since this object was made."""

    def __init__(self, path: Path) -> None:
        self._tail = Tail(path)
        self._tail.skip()
        self._news = asyncio.Event()
        self._broken: Exception | None = None
        self.agents: dict[str, dict[str, float]] = defaultdict(dict)  # room: identity: ACTIVE at ms
        self.assigned: dict[str, list[float]] = defaultdict(list)
        self.ended: Counter[str] = Counter()
        self.calls: dict[str, Counter[str]] = defaultdict(Counter)

    async def run(self) -> None:
        """Read until cancelled; callers that wait for agents learn when this cannot go on."""
        try:
            while True:
                self.look()
                await asyncio.sleep(_LOOK_EVERY_S)
        except Exception as error:
            self._broken = error
            self._news.set()

    def look(self) -> None:
        """Read what is new."""
        found = [event for line in self._tail.news() if (event := parse(line)) is not None]
        for event in found:
            self._take(event)
        if found:
            self._news.set()

    def _take(self, event: LogEvent) -> None:
        if event.what == "active" and event.name.startswith("agent-"):
            self.agents[event.room].setdefault(event.name, event.at_ms)
        elif event.what == "assigned":
            self.assigned[event.room].append(event.at_ms)
        elif event.what == "ended":
            self.ended[event.name] += 1
        elif event.what == "call":
            self.calls[event.room][event.name] += 1

    def first_active_ms(self, room: str) -> float | None:
        """Return when the first agent was ACTIVE in that room (ms since the epoch)."""
        return min(self.agents[room].values(), default=None) if room in self.agents else None

    async def wait_for_agents(
        self, rooms: Iterable[str], *, within_s: float, quiet_s: float | None = None
    ) -> set[str]:
        """Wait for an agent in each room; returns the rooms without one.

        Gives up after `within_s`, or when no agent has come for `quiet_s`.

        Raises:
            BenchError: the log cannot be read any more.
        """
        loop = asyncio.get_running_loop()
        missing = set(rooms)
        until = loop.time() + within_s
        last = loop.time()
        while True:
            if self._broken is not None:
                raise BenchError("LiveKit's log cannot be read any more") from self._broken
            self._news.clear()
            here = {room for room in missing if self.agents.get(room)}
            if here:
                missing -= here
                last = loop.time()
            now = loop.time()
            if not missing or now >= until or (quiet_s is not None and now - last >= quiet_s):
                return missing
            try:
                await asyncio.wait_for(self._news.wait(), min(until - now, 0.5))
            except TimeoutError:
                continue

    def close(self) -> None:
        """Stop reading."""
        self._tail.close()
