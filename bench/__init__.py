"""Benchmarks of Usher against its alternatives, and of its costs.

`make bench` runs every contender (`contenders/`) through every measurement (`measure/`) on one
machine, in turn, and writes docs/benchmarks.md. Results are kept, so that an interrupted run goes
on where it stopped.
"""

from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parent.parent


class BenchError(Exception):
    """The benchmark cannot go on; the text says why and what to do."""
