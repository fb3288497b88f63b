"""`python -m bench`: measure what is missing, then write the report."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from bench import PROJECT_ROOT, BenchError
from bench.contenders import CONTENDERS
from bench.machine import machine, versions
from bench.measure import MEASURES, sound
from bench.procfiles import Kind
from bench.report import write_report
from bench.size import FULL, QUICK, Size
from bench.testbed import Testbed, testbed
from bench.units import Journal, Unit

_STACK_S = 25
_TRIES = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 1 where something could not be measured."""
    options = _parse(arguments)
    size = QUICK if options.quick else FULL
    only = options.only.split(",") if options.only else list(MEASURES)
    if unknown := sorted(set(only) - set(MEASURES)):
        print(f"no such measurement: {', '.join(unknown)}; there are {', '.join(MEASURES)}")
        return 2
    contenders = options.contenders.split(",") if options.contenders else list(CONTENDERS)
    if unknown := sorted(set(contenders) - set(CONTENDERS)):
        print(f"no such contender: {', '.join(unknown)}; there are {', '.join(CONTENDERS)}")
        return 2
    directory = options.out / ("quick" if options.quick else "full")
    journals = {name: Journal(directory, name, asdict(size)) for name in only}
    try:
        failed = (
            [] if options.report_only else asyncio.run(_measure(size, only, contenders, journals))
        )
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BenchError as error:
        print(error, file=sys.stderr)
        return 1
    _write(options, directory, size)
    for line in failed:
        print(f"FAILED: {line}", file=sys.stderr)
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="an idea of everything, in minutes")
    parser.add_argument("--only", default="", metavar="A,B", help=f"of {', '.join(MEASURES)}")
    parser.add_argument(
        "--contenders", default="", metavar="A,B", help=f"of {', '.join(CONTENDERS)}"
    )
    parser.add_argument("--report-only", action="store_true", help="measure nothing")
    parser.add_argument("--out", type=Path, default=PROJECT_ROOT / ".run" / "bench")
    parser.add_argument("--report", type=Path, help="the page (default: in --out)")
    return parser.parse_args(arguments)


async def _measure(
    size: Size, only: list[str], contenders: list[str], journals: dict[str, Journal]
) -> list[str]:
    """Measure the missing units; return those that failed."""
    if sound.NAME in only and (reason := sound.missing()):
        print(f"  {sound.NAME} is skipped: {reason}")
        only = [name for name in only if name != sound.NAME]
    units = [unit for name in only for unit in MEASURES[name].units(size)]
    wanted = [unit for unit in units if unit.contender in contenders]
    missing = [unit for unit in wanted if unit.key not in journals[unit.measure].results]
    kinds = [kind for kind in Kind if any(unit.kind is kind for unit in missing)]
    takes_s = sum(unit.takes_s for unit in missing) + len(kinds) * _STACK_S
    for name in only:
        of_it = [unit for unit in missing if unit.measure == name]
        print(f"  {name:8} {len(of_it):4} to do, {sum(u.takes_s for u in of_it) / 60:5.1f} min")
    print(f"{len(missing)} of {len(wanted)} units, about {takes_s / 60:.0f} minutes", flush=True)
    failed: list[str] = []
    for kind in kinds:
        print(f"--- {kind}", flush=True)
        async with testbed(kind, contenders) as bed:
            await bed.warm_up()
            for unit in missing:
                if unit.kind is kind and (error := await _run(bed, unit, journals[unit.measure])):
                    failed.append(error)
    return failed


async def _run(bed: Testbed, unit: Unit, journal: Journal) -> str:
    error = ""
    for _ in range(_TRIES):
        started = time.monotonic()
        try:
            await bed.place(CONTENDERS[unit.contender])
            result = await MEASURES[unit.measure].run(bed, unit)
        except Exception as problem:
            error = f"{unit.measure} {unit.key}: {type(problem).__name__}: {problem}"
            print(error, file=sys.stderr, flush=True)
            continue
        took_s = time.monotonic() - started
        conditions = {"took_s": round(took_s, 1), "load_1min": psutil.getloadavg()[0]}
        journal.add(unit, {**result, "conditions": conditions})
        print(f"{unit.measure} {unit.key}: {took_s:.0f} s", flush=True)
        return ""
    return error


def _write(options: argparse.Namespace, directory: Path, size: Size) -> None:
    """Write the report of all results, of this run and of earlier ones."""
    results: dict[str, dict[str, Any]] = {}
    for name in MEASURES:
        if (directory / f"{name}.jsonl").exists():
            results[name] = Journal(directory, name, asdict(size)).results
    about = directory / "about.json"
    if not (options.report_only and about.exists()):
        about.write_text(json.dumps({"machine": machine(), "versions": versions()}, indent=1))
    page = options.report or directory / "benchmarks.md"
    write_report(page, results, json.loads(about.read_text()), quick=options.quick)
    print(f"written: {page}")


if __name__ == "__main__":
    sys.exit(main())
