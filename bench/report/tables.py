"""What does the page say, section by section?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from bench.contenders import BY_HTTP, CONTENDERS
from bench.procfiles import AGENT_SLOTS, IDLE_PROCESSES, Kind
from bench.report.results import Results, exactly_one, last_s, measured, seconds
from bench.report.verdicts import Verdict, p99_of, redis_commands
from bench.stats import ENOUGH_FOR_P99, median, p99, percentile, ratio

AGENTS: Final = (
    f"livekit-agents with the same echo entry point, {AGENT_SLOTS} slots, {IDLE_PROCESSES} idle "
    "processes and, unless said otherwise, the thread executor and used slots as the load; "
    "(f)'s has Usher's filter and fence around it, the others' is livekit-agents alone"
)
_KINDS: Final = {
    Kind.SLOTS: "thread executor, load = used slots",
    Kind.CPU: "thread executor, livekit-agents' default load report (CPU)",
    Kind.PROCESS: "process executor, load = used slots",
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; None is a dash."""
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in rows:
        lines.append("| " + " | ".join("-" if cell is None else str(cell) for cell in row) + " |")
    return "\n".join(lines) + "\n"


def _ms(value: float | None) -> str | None:
    return None if value is None else f"{value:.1f}" if value < 20 else f"{value:.0f}"


def _s(value: float | None) -> str | None:
    return None if value is None else f"{value:.3f}"


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


def _join(results: Results) -> str:
    names = measured(results)
    if not names:
        return ""
    times = {name: results.time_to_join_s(name) for name in names}
    best = min(names, key=lambda name: median(times[name]))
    rows = []
    for name in names:
        own = times[name]
        sessions = results.joins(name)
        direct = times.get("direct")
        enough = direct and min(len(own), len(direct)) >= ENOUGH_FOR_P99
        rows.append(
            (
                CONTENDERS[name].title,
                len(own),
                _s(median(own)),
                _s(p99(own)),
                ratio(own, direct) if direct else None,
                ratio(own, direct, of=p99_of) if direct and enough else None,
                ratio(own, times[best]),
                _s(median(seconds(sessions, "assigned_ms") or [0.0])),
                _s(median(seconds(sessions, "joined_at_ms") or [0.0])),
                f"{sum(one['agents'] == 1 for one in sessions)} of {len(sessions)}",
            )
        )
    head = "contender|n|p50 (s)|p99 (s)|p50 / (a)|p99 / (a)|p50 / best|job given (p50)"
    head += "|`joined_at` (p50)|exactly one"
    return (
        "## Time to join, one at a time\n\nFrom the request to the agent ACTIVE; besides, when "
        "LiveKit gave the job to the agent server, and `joined_at` as LiveKit lists it.\n\n"
        + table(head.split("|"), rows)
    )


def _bursts(results: Results) -> str:
    parts = []
    for kind, words in _KINDS.items():
        sizes = results.burst_sizes(kind)
        rows = [row for count in sizes for row in _burst_rows(results, kind, count)]
        if rows:
            head = "at once|contender|exactly one|none|two or more|last (s), median|worst"
            head += "|last / (a)|last / best"
            parts.append(f"### {words}\n\n" + table(head.split("|"), rows))
    if not parts:
        return ""
    intro = (
        "So many sessions are asked for at once. Counted two seconds after the last agent has come "
        "(or after ten seconds without another one); the last is compared only where all have "
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


def _pacing(results: Results) -> str:
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


def _stream(results: Results) -> str:
    rows = []
    for name, contender in CONTENDERS.items():
        found = results.stream(name)
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
                f"{found['lasted_s']:.0f}",
                f"{sum(one['agents'] == 1 for one in sessions)} of {len(sessions)}",
                _s(median(times)),
                _s(p99(times)),
                _s(max(times)),
                _ms(sum(cpu.get(program, 0.0) for program in own if program)),
                _ms(cpu.get(agent)),
                _ms(cpu.get("livekit")),
            )
        )
    if not rows:
        return ""
    head = "contender|s|exactly one|join p50 (s)|p99|longest|own CPU (ms a session)"
    head += "|its agent server's|LiveKit's"
    return (
        "## A steady stream\n\nA session a second on average, at random moments; each lives five "
        "seconds. CPU beyond what the same processes take when nothing happens; the web of (f) "
        "also receives LiveKit's webhooks of everybody's sessions.\n\n"
        + table(head.split("|"), rows)
    )


def _lag(results: Results) -> str:
    rows = []
    for name in BY_HTTP:
        if lags := results.lags_ms(name):
            rows.append(
                (
                    CONTENDERS[name].title,
                    len(lags),
                    _ms(median(lags)),
                    _ms(p99(lags)),
                    _ms(max(lags)),
                )
            )
    if not rows:
        return ""
    return (
        "## Detection lag\n\nFrom the agent being ACTIVE to the contender knowing it (ms): (f)'s "
        "record says `joined`, the others write it into their log.\n\n"
        + table(("contender", "n", "p50", "p99", "most"), rows)
    )


def _http(results: Results) -> str:
    rows = []
    for name in BY_HTTP:
        stretches = results.http(name)
        alone = [one["answered_ms"] for one in results.joins(name)]
        crowd = results.answers_at_once_ms(40, name)
        if not stretches and not alone:
            continue
        took = [ms for one in stretches for ms in one["took_ms"]]
        rows.append(
            (
                CONTENDERS[name].title,
                len(alone),
                _ms(median(alone)) if alone else None,
                _ms(p99(alone)),
                _ms(median(crowd)) if crowd else None,
                _ms(p99(crowd)),
                f"{median([one['per_core_s'] for one in stretches]):.0f}" if stretches else None,
                f"{median([one['per_s'] for one in stretches]):.0f}" if stretches else None,
                _ms(median(took)) if took else None,
                _ms(p99(took)),
            )
        )
    if not rows:
        return ""
    head = "contender|n|alone p50 (ms)|p99|40 at once p50 (ms)|p99|requests/s per core of web"
    head += "|requests/s|full load p50 (ms)|p99"
    return (
        "## HTTP\n\nThe answer's time with real agents coming (alone, 40 at once), each request "
        "over a connection of its own; and under full load from 16 kept connections, dispatch "
        "only (a LiveKit that only answers). Per core: by the CPU time of the web's processes; "
        "in (c) these do the dispatching as well.\n\n" + table(head.split("|"), rows)
    )


def _calls(results: Results) -> str:
    rows = []
    detail = ""
    for name, contender in CONTENDERS.items():
        counted = results.of("calls").get(name)
        if counted is None:
            continue
        sent, inside = redis_commands(counted["redis"])
        livekit = ", ".join(f"{method} {count:.1f}" for method, count in counted["livekit"].items())
        rows.append(
            (
                contender.title,
                f"{sum(counted['livekit'].values()):.1f}",
                livekit or None,
                f"{sent:.1f}" if counted["redis"] else None,
                f"{inside:.1f}" if counted["redis"] else None,
            )
        )
        if name == "usher":
            most = sorted(counted["redis"].items(), key=lambda item: -item[1])
            shown = [(*what.split(" ", 1), f"{count:.1f}") for what, count in most if count >= 0.2]
            detail = "\n(f)'s Redis commands:\n\n" + table(
                ("sent by", "command", "for a session"), shown
            )
    if not rows:
        return ""
    return (
        "## Calls for one session\n\nFrom the request to the end of the room, which comes as soon "
        "as the agent is there; less what the same processes do when nothing happens. A session "
        "that lives renews its lease every 0.8 s, one command each.\n\n"
        + table(("contender", "LiveKit calls", "which", "Redis commands", "inside scripts"), rows)
        + detail
    )


def _waiting(results: Results) -> str:
    rows = [
        (
            CONTENDERS[name].title,
            found["waiting"],
            f"{found['redis_bytes_each']:.0f}",
            f"{found['web_bytes_each']:.0f}",
        )
        for name, found in results.of("memory").items()
    ]
    parts = []
    if rows:
        parts.append(
            "## Waiting sessions\n\nBytes for each session that waits, with the workers stopped; "
            "of (f) the whole record with its history and its message.\n\n"
            + table(("contender", "waiting", "Redis (bytes each)", "web (bytes each)"), rows)
        )
    if found := results.backlog():
        parts.append(
            f"### A backlog of {found['accepted']:,}\n\nDispatch only, no agents: a LiveKit that "
            "only answers, an agent server's report with free slots that are not there, no "
            "verification.\n\n" + table(("what", "how much"), _backlog_rows(found))
        )
    return "\n".join(parts)


def _backlog_rows(found: Mapping[str, Any]) -> list[tuple[str, object]]:
    return [
        (
            "accepted",
            f"{found['accepted']:,} in {found['loading_s']:.0f} s "
            f"({found['accepted_per_s']:.0f}/s, {found['web_cpu_ms_each']:.2f} ms of web)",
        ),
        ("never dispatched", found["never_dispatched"]),
        ("dispatched twice", found["dispatched_twice"]),
        ("places from its turn", f"p99 {found['displaced_p99']}, most {found['displaced_most']}"),
        (
            "drained",
            f"in {found['drained_s']:.0f} s, {found['dispatches_per_s']:.0f}/s; "
            f"{found['dispatches_per_worker_core_s']:.0f}/s per core of the worker",
        ),
        (
            "Redis",
            f"{found['redis_bytes_each']:.0f} bytes each, at most "
            f"{found['redis_peak_bytes'] / 1e6:.0f} MB; {found['redis_cpu_s']:.0f} s of CPU",
        ),
        ("dispatch worker", f"at most {found['worker_peak_bytes'] / 1e6:.0f} MB"),
        ("web", f"{found['web_bytes_each']:.0f} bytes each (what it remembers till the deadline)"),
        ("states at the end", ", ".join(f"{k} {v}" for k, v in found["states"].items())),
    ]


def _live(results: Results) -> str:
    rows = []
    for level, found in sorted(results.of("live").items(), key=lambda item: int(item[0])):
        idle, each = found["idle_cpu_ms_per_s"], found["cpu_ms_per_session"]
        own = ("web", "dispatch", "verify", "beat", "flower")
        rows.append(
            (
                level,
                _ms(sum(idle.get(name, 0.0) for name in own)),
                _ms(idle.get("redis")),
                f"{found['idle_redis_commands_per_s']:.0f}",
                _ms(idle.get("pretended")),
                *(_ms(each.get(name)) for name in ("web", "dispatch", "verify", "redis")),
                _ms(sum(each.get(name, 0.0) for name in (*own, "redis"))),
                _ms(median(found["request_to_joined_ms"] or [0.0])),
            )
        )
    if not rows:
        return ""
    head = "live|Usher at rest (ms CPU/s)|Redis|commands/s|the agents' renewals (not Usher's)"
    head += "|one more: web (ms)|dispatch|verify|Redis|all|request to `joined` p50 (ms)"
    return (
        "## Cost beside live sessions\n\nThe live ones are records that one process renews every "
        "0.8 s, as their agents would; LiveKit is one that only answers and lists an agent in "
        "every room. First what they cost by themselves, then what one more session costs beside "
        "them. No agent reports itself here, so `joined` comes with the verification's next poll "
        "(0.5 s).\n\n" + table(head.split("|"), rows)
    )


SECTIONS: Final[Mapping[str, Callable[[Results], str]]] = {
    "join": _join,
    "burst": _bursts,
    "pacing": _pacing,
    "stream": _stream,
    "lag": _lag,
    "http": _http,
    "calls": _calls,
    "waiting": _waiting,
    "live": _live,
}
