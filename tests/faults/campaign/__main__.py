"""`python -m tests.faults.campaign`: run a campaign, write its report, exit 1 if it has failed."""

from __future__ import annotations

import argparse
import json
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

from worker_agent.livekit_workarounds import native_client

from .oracle import judge
from .plan import WAYS, Behaviour, Kind, Person, make_plan
from .report import VERDICTS, Summary
from .rounds import Setting, evidence_of, run_round


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parse(given)
    # What LiveKit's client says about lost connections is what happens here all the time.
    logging.getLogger("livekit").setLevel(logging.CRITICAL)
    os.environ["RUST_LOG"] = "off"
    native_client.make()
    del os.environ["RUST_LOG"]  # the product's processes inherit the rest
    rounds = list(_rounds(options))
    command = shlex.join(["python", "-m", "tests.faults.campaign", *given])
    summary = Summary(command=options.command or command, rounds=rounds)
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_text(summary.as_markdown())
    options.report.with_suffix(".json").write_text(summary.as_json())
    print(summary.as_markdown())
    return 0 if summary.passed else 1


def _rounds(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The result of every round; one that has been run is not run again, only judged."""
    setting = Setting(procfile=options.procfile, settle_s=options.settle)
    for seed in options.seed:
        for number in range(options.rounds):
            directory = options.out / f"seed-{seed}-round-{number}"
            shape = {
                "sessions": options.sessions // options.rounds,
                "kills": options.kills // options.rounds,
                "per_s": options.per_s,
                "stay_s": options.stay,
                "agents": [str(agent) for agent in options.agents],
                "people": [str(person) for person in options.people],
                "only": [str(kind) for kind in options.only],
                "ways": [str(way) for way in options.ways],
                "procfile": options.procfile.name,
            }
            done = directory / "result.json"
            result = json.loads(done.read_text()) if done.exists() else {}
            if result.get("shape") != shape:
                directory.mkdir(parents=True, exist_ok=True)
                done.unlink(missing_ok=True)
                plan = make_plan(
                    seed=seed,
                    number=number,
                    sessions=shape["sessions"],
                    kills=shape["kills"],
                    per_s=options.per_s,
                    stay_s=options.stay,
                    only=tuple(options.only),
                    agents=tuple(options.agents),
                    people=tuple(options.people),
                    ways=tuple(options.ways),
                )
                (directory / "commit").write_text(_commit())
                run_round(plan, directory, setting)
            evidence = evidence_of(directory)
            commit = (directory / "commit").read_text()
            result = {"seed": seed, "shape": shape, "commit": commit, **judge(evidence).as_json()}
            done.write_text(json.dumps(result))
            counts = {what: _count(result, what) for what in VERDICTS}
            print(
                f"seed {seed} round {number}: {result['sessions']} sessions, "
                f"{result['kills']} kills, {counts}, "
                f"{len(result['slow_answers'])} late answers",
                flush=True,
            )
            yield result


def _commit() -> str:
    """What is being tested; `-dirty` when it is not what was committed."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _count(result: dict[str, Any], what: str) -> int:
    return sum(finding["what"] == what for finding in result["findings"])


def _named(kinds: type[StrEnum], name: str) -> StrEnum:
    try:
        return kinds[name]
    except KeyError:
        raise argparse.ArgumentTypeError(f"none of {', '.join(kinds.__members__)}") from None


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.campaign", description=__doc__)
    parser.add_argument("--seed", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--sessions", type=int, default=2040, help="per seed")
    parser.add_argument(
        "--kills", type=int, default=312, help="per seed; the other faults come on top"
    )
    parser.add_argument("--rounds", type=int, default=6, help="per seed, each on a new stack")
    # Each fault on a process costs its start anew, some seconds of a processor. With 1.25 sessions
    # a second, and their faults, two processors were busy all the time, and LiveKit itself ran into
    # its time-outs; that judges the machine.
    parser.add_argument("--per-s", type=float, default=0.6, help="sessions that begin per second")
    parser.add_argument("--stay", type=float, default=8.0, metavar="SECONDS", help="on average")
    parser.add_argument("--out", type=Path, required=True, help="evidence, kept to go on from")
    parser.add_argument("--report", type=Path, required=True, help="the Markdown; JSON beside it")
    parser.add_argument("--command", default="", help="the command that the report names")
    parser.add_argument("--procfile", type=Path, default=Setting().procfile)
    parser.add_argument("--settle", type=float, default=Setting().settle_s, metavar="SECONDS")
    for name, kinds, what in (
        ("agents", Behaviour, "these behaviours of agents alone"),
        ("people", Person, "these ways of people alone"),
    ):
        parser.add_argument(
            f"--{name}",
            type=partial(_named, kinds),
            nargs="+",
            default=list(kinds),
            metavar="NAME",
            help=f"{what}: {', '.join(kinds.__members__)}",
        )
    only = partial(_named, Kind)
    parser.add_argument("--only", type=only, nargs="+", default=[], help="these faults alone")
    ways = {way.name: way for names in WAYS.values() for way in names}
    parser.add_argument(
        "--ways",
        type=lambda name: ways.get(name, name),
        choices=list(ways.values()),
        nargs="+",
        default=[],
        metavar="NAME",
        help=f"these errors of Redis's and garbage alone: {', '.join(ways)}",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    code = main()
    # A thread of livekit-rtc that still has something to say to a Python that is ending aborts the
    # process ("panic in a function that cannot unwind"), after everything has been reported.
    sys.stdout.flush()
    os._exit(code)
