"""The report's page, section by section."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Final

from bench.contenders import BY_HTTP, CONTENDERS
from bench.procfiles import AGENT_SLOTS, IDLE_PROCESSES, Kind
from bench.report import bursts, costs
from bench.report.results import Results, measured, seconds
from bench.report.verdicts import Verdict, p99_of
from bench.report.writing import in_ms, in_s, table
from bench.size import FAST_PER_S
from bench.stats import ENOUGH_FOR_P99, median, p99, percentile, ratio

AGENTS: Final = (
    f"livekit-agents with the same echo entry point, {AGENT_SLOTS} slots, {IDLE_PROCESSES} idle "
    "processes and, unless said otherwise, the thread executor and used slots as the load; "
    "that of (f) and (g) has Usher's `rtc_session` around it (filter, fence, and how it connects "
    "to a room), the others' is livekit-agents alone"
)


def about(found: Mapping[str, Mapping[str, str]], results: Results) -> str:
    """Machine and versions, and how quiet the machine was."""
    named = [f"{name} {value}" for name, value in found["machine"].items()]
    versions = [f"{name} {value}" for name, value in found["versions"].items()]
    busy = [one["busy_percent"] for one in results.each_unit() if "busy_percent" in one]
    quiet = (
        f"\nBefore a unit was measured the processors were busy by {median(busy):.0f} % (median; "
        f"p90 {percentile(busy, 0.9):.0f} %): what the idle contenders and their servers take.\n"
        if busy
        else ""
    )
    return f"Machine: {'; '.join(named)}.\nVersions: {'; '.join(versions)}.\n{quiet}"


def must_hold(found: Sequence[Verdict]) -> str:
    """Targets and verdicts."""
    words = {True: "met", False: "**missed**", None: "open"}
    rows = [(one.target, one.measured, words[one.met]) for one in found]
    return "## Must hold\n\n" + table(("target", "measured", "verdict"), rows)


_JOIN_KINDS: Final = {Kind.SLOTS: "thread executor", Kind.PROCESS: "process executor"}


def _join(results: Results) -> str:
    head = "contender|n|p50 (s)|p99 (s)|p50 / (a)|p99 / (a)|p50 / best|job given (p50)"
    head += "|`joined_at` (p50)|exactly one"
    parts = [
        f"With the {words}:\n\n" + table(head.split("|"), rows)
        for kind, words in _JOIN_KINDS.items()
        if (rows := _join_rows(results, kind))
    ]
    if not parts:
        return ""
    return (
        "## Time to join, one at a time\n\nFrom the request to the agent ACTIVE; besides, when "
        "LiveKit gave the job to the agent server (in (g) it gives none), and `joined_at` as "
        "LiveKit lists it.\n\n" + "\n".join(parts)
    )


def _join_rows(results: Results, kind: Kind) -> list[tuple[object, ...]]:
    names = measured(results, kind)
    if not names:
        return []
    times = {name: results.time_to_join_s(name, kind) for name in names}
    best = min(names, key=lambda name: median(times[name]))
    rows: list[tuple[object, ...]] = []
    for name in names:
        own = times[name]
        sessions = results.joins(name, kind)
        assigned, joined_at = (
            seconds(sessions, field) for field in ("assigned_ms", "joined_at_ms")
        )
        direct = times.get("direct")
        enough = direct and min(len(own), len(direct)) >= ENOUGH_FOR_P99
        rows.append(
            (
                CONTENDERS[name].title,
                len(own),
                in_s(median(own)),
                in_s(p99(own)),
                ratio(own, direct) if direct else None,
                ratio(own, direct, of=p99_of) if direct and enough else None,
                ratio(own, times[best]),
                in_s(median(assigned)) if assigned else None,
                in_s(median(joined_at)) if joined_at else None,
                f"{sum(one['agents'] == 1 for one in sessions)} of {len(sessions)}",
            )
        )
    return rows


def _sound(results: Results) -> str:
    token = [one["heard_ms"] for one in results.sounds("token")]
    rows = []
    for name, contender in CONTENDERS.items():
        found = results.sounds(name)
        if not found:
            continue
        heard = [one["heard_ms"] for one in found]
        before = [
            median([one[f"{step}_ms"] for one in found])
            for step in ("token", "connected", "subscribed")
        ]
        rows.append(
            (
                contender.title,
                len(found),
                *map(in_ms, before),
                in_ms(median(heard)),
                in_ms(min(heard)),
                in_ms(max(heard)),
                ratio(heard, token) if token else None,
                f"{sum(one['agents'] == 1 for one in found)} of {len(found)}",
            )
        )
    if not rows:
        return ""
    head = "contender|n|has its token, p50 (ms)|connected|subscribed|first sound, p50 (ms)"
    head += "|least|most|p50 / (b)|exactly one"
    return (
        "## From the click to the first sound\n\nIn a headless Chromium, with LiveKit's SDK: from "
        "the click to the agent's tone in what the browser plays. All agents publish their track "
        "when they have joined, and play the tone when the person has subscribed. In (f) and (g) "
        "the page asks Usher for its token after the click; in (b) it has its token before.\n\n"
        + table(head.split("|"), rows)
    )


def _stream(results: Results) -> str:
    rows = []
    for per_s, (name, contender) in product((1, FAST_PER_S), CONTENDERS.items()):
        found = results.stream(name, per_s)
        if not found:
            continue
        sessions = found["sessions"]
        times = seconds(sessions, "active_ms") or [0.0]
        cpu = found["cpu_ms_per_session"]
        own = [contender.web, *contender.workers, contender.redis]
        agent = "agent" if contender.agent == "usher" else "plain"
        rows.append(
            (
                contender.title,
                per_s,
                f"{found['lasted_s']:.0f}",
                f"{sum(one['agents'] == 1 for one in sessions)} of {len(sessions)}",
                in_s(median(times)),
                in_s(p99(times)),
                in_s(max(times)),
                in_ms(sum(cpu.get(program, 0.0) for program in own if program)),
                in_ms(cpu.get(agent)),
                in_ms(cpu.get("livekit")),
            )
        )
    if not rows:
        return ""
    head = "contender|a second|s|exactly one|join p50 (s)|p99|longest|own CPU (ms a session)"
    head += "|its agent server's|LiveKit's"
    return (
        "## A steady stream\n\nSo many sessions a second on average, at random moments; each lives "
        "five seconds, with twenty a second three, so that none waits for a slot. CPU beyond what "
        "the same processes take when nothing happens; Usher's web also has LiveKit's webhooks "
        "of everybody's sessions.\n\n" + table(head.split("|"), rows)
    )


def _lag(results: Results) -> str:
    rows = []
    for name in BY_HTTP:
        if lags := results.lags_ms(name):
            rows.append(
                (
                    CONTENDERS[name].title,
                    len(lags),
                    in_ms(median(lags)),
                    in_ms(p99(lags)),
                    in_ms(max(lags)),
                )
            )
    if not rows:
        return ""
    return (
        "## Detection lag\n\nFrom the agent being ACTIVE to the contender knowing it (ms): (f)'s "
        "record says `joined`, the others write it into their log.\n\n"
        + table(("contender", "n", "p50", "p99", "most"), rows)
    )


SECTIONS: Final[Mapping[str, Callable[[Results], str]]] = {
    "join": _join,
    "burst": bursts.bursts,
    "pacing": bursts.pacing,
    "sound": _sound,
    "stream": _stream,
    "lag": _lag,
    "http": costs.http,
    "calls": costs.calls,
    "waiting": costs.waiting,
    "live": costs.live,
}
