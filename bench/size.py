"""The size of a run: the full one is for docs/benchmarks.md, the quick one a rough check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# What is asked of a burst is asked of this many at once.
TARGET_BURST: Final = 40
# Sessions a second in the fast stream.
FAST_PER_S: Final = 20


@dataclass(frozen=True, kw_only=True)
class Size:
    """Counts and times of every measurement."""

    join_rounds: int
    join_each: int
    join_others_each: int
    join_process_rounds: int
    burst_rounds: int
    burst_sizes: tuple[int, ...]
    burst_target_rounds: int
    cpu_rounds: int
    cpu_sizes: tuple[int, ...]
    process_rounds: int
    process_sizes: tuple[int, ...]
    two_rounds: int
    pacing_rounds: int
    pacing_windows: tuple[int, ...]
    pacing_spacings_ms: tuple[int, ...]
    http_rounds: int
    http_s: float
    stream_s: float
    stream_others_s: float
    stream_fast_s: float
    sound_rounds: int
    calls_sessions: int
    memory_sessions: int
    backlog_sessions: int
    live_levels: tuple[int, ...]
    live_sessions: int
    live_idle_s: float


FULL: Final = Size(
    join_rounds=12,
    join_each=9,
    join_others_each=2,
    join_process_rounds=3,
    burst_rounds=1,
    burst_sizes=(5, 10, 20, 80),
    burst_target_rounds=3,
    cpu_rounds=1,
    cpu_sizes=(5, 20, 40, 80),
    process_rounds=1,
    process_sizes=(40,),
    two_rounds=2,
    pacing_rounds=2,
    pacing_windows=(8, 16, 24),
    pacing_spacings_ms=(25, 50),
    http_rounds=2,
    http_s=12,
    stream_s=300,
    stream_others_s=20,
    stream_fast_s=30,
    sound_rounds=20,
    calls_sessions=10,
    memory_sessions=5000,
    backlog_sessions=100_000,
    live_levels=(0, 10, 100, 1000),
    live_sessions=60,
    live_idle_s=20,
)
QUICK: Final = Size(
    join_rounds=3,
    join_each=3,
    join_others_each=3,
    join_process_rounds=1,
    burst_rounds=1,
    burst_sizes=(5, 20),
    burst_target_rounds=0,
    cpu_rounds=1,
    cpu_sizes=(20,),
    process_rounds=0,
    process_sizes=(),
    two_rounds=1,
    pacing_rounds=1,
    pacing_windows=(8,),
    pacing_spacings_ms=(50,),
    http_rounds=1,
    http_s=4,
    stream_s=20,
    stream_others_s=10,
    stream_fast_s=10,
    sound_rounds=3,
    calls_sessions=5,
    memory_sessions=1000,
    backlog_sessions=3000,
    live_levels=(0, 10, 100),
    live_sessions=10,
    live_idle_s=5,
)
