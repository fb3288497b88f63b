"""Statistics of samples: percentiles, and ratios with bootstrap intervals."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

# With fewer samples the 99th percentile is the largest one, or nearly.
ENOUGH_FOR_P99: Final = 100
_RESAMPLES: Final = 1000
_SHARE: Final = 0.95


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that is not below `share` of all. Raises ValueError for no values."""
    if not values:
        raise ValueError("no values")
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def median(values: Sequence[float]) -> float:
    """The middle value, or halfway between the middle two."""
    ordered = sorted(values)
    if not ordered:
        raise ValueError("no values")
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def p99(values: Sequence[float]) -> float | None:
    """The 99th percentile; None where the samples are too few to know one."""
    return percentile(values, 0.99) if len(values) >= ENOUGH_FOR_P99 else None


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """A ratio with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ({self.low:.2f}-{self.high:.2f})"


def ratio(
    values: Sequence[float],
    base: Sequence[float],
    *,
    of: Callable[[Sequence[float]], float] = median,
    seed: int = 1,
) -> Ratio:
    """`of(values) / of(base)` with its bootstrap interval (percentiles of resampled ratios)."""
    chance = random.Random(seed)
    resampled = sorted(
        of(chance.choices(values, k=len(values))) / (of(chance.choices(base, k=len(base))) or 1e-9)
        for _ in range(_RESAMPLES)
    )
    outside = (1 - _SHARE) / 2
    return Ratio(
        value=of(values) / (of(base) or 1e-9),
        low=percentile(resampled, outside),
        high=percentile(resampled, 1 - outside),
    )
