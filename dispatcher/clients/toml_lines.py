"""Line numbers of tables and keys in a TOML file.

tomllib gives a line for wrong syntax only. This is a simple search, good enough for messages: hits
inside a multi-line string do no harm, and a missed place falls back to the table around it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Final

Loc = tuple[str | int, ...]  # a pydantic location: ("clients", "acme", "keys", 0, "id")

_TABLE: Final = re.compile(r"\s*(\[\[?)([^\[\]]+)\]")
_ASSIGNMENT: Final = re.compile(r"""\s*((?:[\w-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[\w"'-]+)*)\s*=""")


def places(text: str) -> dict[Loc, int]:
    """Return the line in which each table and each key of a table begins."""
    found: dict[Loc, int] = {}
    count: Counter[Loc] = Counter()
    table: Loc = ()
    for number, line in enumerate(text.splitlines(), start=1):
        if header := _TABLE.match(line):
            table = _parts(header[2])
            if header[1] == "[[":
                count[table] += 1
                table = (*table, count[table] - 1)
            found.setdefault(table, number)
        elif assigned := _ASSIGNMENT.match(line):
            found.setdefault((*table, *_parts(assigned[1])), number)
    return found


def _parts(dotted: str) -> Loc:
    return tuple(part.strip().strip("\"'") for part in dotted.split("."))


def line_of(lines: Mapping[Loc, int], loc: Loc) -> int:
    """Return the line of the deepest part of `loc` that is in the text; else the first line."""
    for length in range(len(loc), 0, -1):
        if (line := lines.get(loc[:length])) is not None:
            return line
    return 1
