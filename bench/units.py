"""The units of a run, and the file of units that are measured already."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.procfiles import Kind


@dataclass(frozen=True, kw_only=True)
class Unit:
    """The smallest thing that is measured, kept and never measured twice.

    Attributes:
        measure: the measurement that it belongs to.
        kind: the testbed that it needs.
        key: its name within that measurement, such as "2/usher/40".
        contender: the contender's name, or empty where it is Usher's alone.
        takes_s: an estimate.
        arguments: what the measurement needs to know to run it.
    """

    measure: str
    kind: Kind
    key: str
    contender: str = ""
    takes_s: float
    arguments: dict[str, Any] = field(default_factory=dict)


def rotated(names: Sequence[str], number: int) -> list[str]:
    """The contenders of one round: each round begins with another one."""
    start = number % len(names)
    return [*names[start:], *names[:start]]


class Journal:
    """The results of one measurement, a line each; a new size of it begins anew."""

    def __init__(self, directory: Path, measure: str, shape: dict[str, Any]) -> None:
        self._path = directory / f"{measure}.jsonl"
        head = json.dumps({"shape": shape}, sort_keys=True)
        lines = self._path.read_text().splitlines() if self._path.exists() else []
        if not lines or lines[0] != head:
            directory.mkdir(parents=True, exist_ok=True)
            self._path.write_text(head + "\n")
            lines = [head]
        self.results: dict[str, dict[str, Any]] = {}
        for line in lines[1:]:
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue  # the run was killed while it wrote this line
            self.results[entry["key"]] = entry["result"]

    def add(self, unit: Unit, result: dict[str, Any]) -> None:
        """Keep the result of a unit."""
        self.results[unit.key] = result
        with self._path.open("a") as file:
            file.write(json.dumps({"key": unit.key, "result": result}) + "\n")
