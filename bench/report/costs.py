"""The report's sections on HTTP, calls, waiting sessions and live sessions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.contenders import BY_HTTP, CONTENDERS, USHERS
from bench.report.results import Results
from bench.report.verdicts import redis_commands
from bench.report.writing import in_ms, table
from bench.stats import median, p99


def http(results: Results) -> str:
    """Answer times, and requests per core."""
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
                in_ms(median(alone)) if alone else None,
                in_ms(p99(alone)),
                in_ms(median(crowd)) if crowd else None,
                in_ms(p99(crowd)),
                f"{median([one['per_core_s'] for one in stretches]):.0f}" if stretches else None,
                f"{median([one['per_s'] for one in stretches]):.0f}" if stretches else None,
                in_ms(median(took)) if took else None,
                in_ms(p99(took)),
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


def calls(results: Results) -> str:
    """LiveKit calls and Redis commands of one session."""
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
        if name in USHERS:
            most = sorted(counted["redis"].items(), key=lambda item: -item[1])
            shown = [(*what.split(" ", 1), f"{count:.1f}") for what, count in most if count >= 0.2]
            detail += f"\nRedis commands of {contender.title}:\n\n" + table(
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


def waiting(results: Results) -> str:
    """Memory of what waits, and the backlog."""
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
        ("places after its turn", f"p99 {found['late_p99']}, most {found['late_most']}"),
        ("places before it", f"most {found['early_most']}"),
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


def live(results: Results) -> str:
    """Cost at rest and of one more session, beside so many live ones."""
    rows = []
    levels = {tuple(key.split("/")): found for key, found in results.of("live").items()}
    for (level, name), found in sorted(
        levels.items(), key=lambda item: (int(item[0][0]), item[0][1])
    ):
        idle, each = found["idle_cpu_ms_per_s"], found["cpu_ms_per_session"]
        own = ("web", "dispatch", "verify", "beat", "flower")
        rows.append(
            (
                level,
                CONTENDERS[name].title,
                in_ms(sum(idle.get(program, 0.0) for program in own)),
                in_ms(idle.get("redis")),
                f"{found['idle_redis_commands_per_s']:.0f}",
                in_ms(idle.get("pretended")),
                *(in_ms(each.get(program)) for program in ("web", "dispatch", "verify", "redis")),
                in_ms(sum(each.get(program, 0.0) for program in (*own, "redis"))),
                in_ms(median(found["request_to_joined_ms"] or [0.0])),
            )
        )
    if not rows:
        return ""
    head = "live|of|Usher at rest (ms CPU/s)|Redis|commands/s|the agents' renewals (not Usher's)"
    head += "|one more: web (ms)|dispatch|verify|Redis|all|request to `joined` p50 (ms)"
    return (
        "## Cost beside live sessions\n\nThe live ones are records that one process renews every "
        "0.8 s, as their agents would; LiveKit is one that only answers and lists an agent in "
        "every room. First what they cost by themselves, then what one more session costs beside "
        "them. No agent reports itself here, so `joined` comes with the verification's next look "
        "(2 s; in (g) after the 0.4 s in which the job has to be claimed).\n\n"
        + table(head.split("|"), rows)
    )
