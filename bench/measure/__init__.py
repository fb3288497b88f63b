"""The measurements, one module each, which lists its units and measures one.

A module has `NAME`, `units(size)` and `run(bed, unit)`; the result of a unit is plain JSON.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, Final, Protocol

from bench.measure import (
    backlog,
    burst,
    calls,
    http,
    join,
    live,
    memory,
    pacing,
    sound,
    stream,
)
from bench.size import Size
from bench.testbed import Testbed
from bench.units import Unit


class Measure(Protocol):
    """A module of this package."""

    NAME: str

    def units(self, size: Size) -> list[Unit]:
        """Return the units to measure, in order."""
        ...

    def run(self, bed: Testbed, unit: Unit) -> Awaitable[dict[str, Any]]:
        """Measure one of them."""
        ...


MEASURES: Final[dict[str, Any]] = {
    module.NAME: module
    for module in (join, burst, pacing, stream, calls, sound, http, memory, backlog, live)
}
