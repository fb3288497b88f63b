"""The report's section on bursts."""

from __future__ import annotations

from collections import Counter
from typing import Final

from bench.contenders import CONTENDERS, USHERS
from bench.procfiles import SLOTS_OF_TWO, Kind
from bench.report.results import Results, exactly_one, last_s
from bench.report.writing import table
from bench.stats import median

_KINDS: Final = {
    Kind.SLOTS: "thread executor, load = used slots",
    Kind.CPU: "thread executor, livekit-agents' default load report (CPU)",
    Kind.PROCESS: "process executor, load = used slots",
    Kind.TWO: f"thread executor, load = used slots, two agent servers of {SLOTS_OF_TWO} slots each",
}


def bursts(results: Results) -> str:
    """Write the section: every kind and size, and their costs."""
    parts = []
    for kind, words in _KINDS.items():
        sizes = results.burst_sizes(kind)
        rows = [row for count in sizes for row in _burst_rows(results, kind, count)]
        if rows:
            head = "at once|contender|exactly one|none|two or more|last (s), median|worst"
            head += "|last / (a)|last / best"
            parts.append(f"### {words}\n\n" + table(head.split("|"), rows))
            parts += [_why(results, kind), _cpu(results, kind, max(sizes))]
    if not parts:
        return ""
    intro = (
        "So many sessions are asked for at once. Counted two seconds after the last agent has come "
        "(or after 15 seconds without another one); the last is compared only where all have "
        "come.\n"
    )
    return "\n".join(["## Bursts\n", intro, *parts])


def _burst_rows(results: Results, kind: Kind, count: int) -> list[tuple[object, ...]]:
    found = {name: results.bursts(kind, count, name) for name in CONTENDERS}
    whole = {
        name: [last_s(burst) or 0.0 for burst in bursts]
        for name, bursts in found.items()
        if bursts and all(exactly_one(burst) == count for burst in bursts)
    }
    best = min(whole, key=lambda name: median(whole[name]), default=None)
    rows = []
    for name, bursts in found.items():
        if not bursts:
            continue
        last = [last_s(burst) or 0.0 for burst in bursts]
        total = count * len(bursts)
        none = sum(session["agents"] == 0 for burst in bursts for session in burst)
        more = sum(session["agents"] > 1 for burst in bursts for session in burst)
        one = sum(exactly_one(burst) for burst in bursts)
        against = (
            [
                f"{median(last) / median(whole[other]):.2f}" if other in whole else None
                for other in ("direct", best or "")
            ]
            if name in whole
            else [None, None]
        )
        rows.append(
            (
                count,
                CONTENDERS[name].title,
                f"{one} of {total} ({one / total:.0%})",
                none,
                more,
                f"{median(last):.2f}",
                f"{max(last):.2f}",
                *against,
            )
        )
    return rows


def _why(results: Results, kind: Kind) -> str:
    """Usher's own words for its sessions that have not exactly one agent."""
    said = Counter(
        f"{CONTENDERS[name].title}: {session['record']}"
        for name in USHERS
        for count in results.burst_sizes(kind)
        for burst in results.bursts(kind, count, name)
        for session in burst
        if session.get("record")
    )
    words = "; ".join(f"{times} x {record}" for record, times in said.most_common())
    return f"Usher's records of sessions without exactly one agent: {words}.\n" if words else ""


def _cpu(results: Results, kind: Kind, count: int) -> str:
    """Write the processor time of each process until the last agent had joined."""
    rows = []
    for name, contender in CONTENDERS.items():
        used = results.burst_cpu_s(kind, count, name)
        if not used:
            continue
        own = {contender.web, *contender.workers, contender.redis} - {""}
        agent = "agent" if contender.agent == "usher" else "plain"
        agents = {name for name in used if name.startswith(agent)}  # one, or two of them
        others = set(used) - own - agents - {"livekit"}
        rows.append(
            (
                contender.title,
                f"{used.get('livekit', 0.0):.2f}",
                f"{sum(used[program] for program in agents):.2f}",
                f"{sum(used[program] for program in own if program in used):.2f}",
                f"{sum(used[program] for program in others):.2f}",
            )
        )
    head = "contender|LiveKit|its agent servers|its own processes|the other contenders'"
    return f"CPU seconds of a burst of {count} (mean), to its last agent:\n\n" + table(
        head.split("|"), rows
    )


def pacing(results: Results) -> str:
    """Usher beside direct calls at every pace."""
    paces = results.paces()
    if not paces:
        return ""
    rows = [
        (
            pace if pace != "usher" else "(f) Usher",
            len(bursts),
            f"{min(one['exactly_one'] for one in bursts)} of 40",
            f"{median([one['last_s'] for one in bursts]):.2f}",
            f"{max(one['last_s'] for one in bursts):.2f}",
        )
        for pace, bursts in paces.items()
    ]
    return (
        "### The best pace of direct calls\n\n40 sessions that wait at the same moment.\n\n"
        + table(("pace", "n", "exactly one (least)", "last (s), median", "worst"), rows)
    )
