"""Line numbers of tables and keys in a TOML file.

tomllib gives a line for wrong syntax only. This is a simple search, good enough for messages: hits
inside a multi-line string do no harm, and a missed place falls back to the table around it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from typing import Final

Loc = tuple[str | int, ...]  # a pydantic location: ("clients", "acme", "keys", 0, "id")

_TABLE: Final = re.compile(r"\s*(\[\[?)([^\[\]]+)\]")
_ASSIGNMENT: Final = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[\w"'-]+)*)\s*=""")


def line_of(text: str, loc: Loc) -> int:
    """Return the line of the deepest part of `loc` that is in `text`; else the first line."""
    deepest, line = 0, 1
    for number, place in _places(text):
        if len(place) > deepest and place == loc[: len(place)]:
            deepest, line = len(place), number
    return line


def _places(text: str) -> Iterator[tuple[int, Loc]]:
    """Yield the line in which each table and each key of a table begins."""
    count: Counter[Loc] = Counter()
    table: Loc = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            table = _parts(header[2])
            if header[1] == "[[":
                count[table] += 1
                table = (*table, count[table] - 1)
            yield number, table
        elif assigned := _ASSIGNMENT.match(line):
            yield number, (*table, *_parts(assigned[1]))


def _parts(dotted: str) -> Loc:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))
