"""Formatting of tables and numbers in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; None is a dash."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        lines.append("| " + " | ".join("-" if cell is None else str(cell) for cell in row) + " |")
    return "\n".join(lines) + "\n"


def in_ms(value: float | None) -> str | None:
    """Milliseconds, with a digit where that says something."""
    return None if value is None else f"{value:.1f}" if value < 20 else f"{value:.0f}"


def in_s(value: float | None) -> str | None:
    """Seconds to the millisecond."""
    return None if value is None else f"{value:.3f}"
