"""The journals of a campaign: one JSON object a line, appended and flushed at once."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Event = Mapping[str, Any]  # one line of a journal


class Journal:
    """An append-only file of events; several processes may append to one."""

    def __init__(self, path: Path) -> None:
        # A write of one short line with O_APPEND is not mixed with another's.
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def write(self, event: str, **fields: Any) -> float:
        """Append one event; returns its time, in seconds since the epoch."""
        at = time.time()
        line = json.dumps({"t": round(at, 4), "event": event, **fields}, separators=(",", ":"))
        os.write(self._file, line.encode() + b"\n")
        return at

    def close(self) -> None:
        os.close(self._file)


class Tail:
    """Reads a journal that still grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read_to = 0

    def news(self) -> list[dict[str, Any]]:
        """The events since the last call; half a line, of a process that was killed, is none."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._read_to)
            text, _, _ = file.read().rpartition(b"\n")
        if not text:
            return []
        self._read_to += len(text) + 1
        return [json.loads(line) for line in text.split(b"\n")]


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All events of a file."""
    return Tail(path).news()
