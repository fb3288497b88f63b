"""The targets, and whether the results meet them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from bench.contenders import CONTENDERS, USHERS
from bench.procfiles import SLOTS_OF_TWO, Kind
from bench.report.results import Results, exactly_one, last_s
from bench.size import TARGET_BURST
from bench.stats import ENOUGH_FOR_P99, Ratio, median, p99, percentile, ratio

# 64 threads take messages at once, and 16 connections asked at once: no turn is more exact.
IN_ORDER_WITHIN: Final = 64 + 16


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """One target; `met` is None where it was not measured, or with too few samples."""

    target: str
    measured: str
    met: bool | None


def verdicts(results: Results) -> list[Verdict]:
    """Every target that this benchmark can judge."""
    return [
        *_join(results),
        *_direct_placement(results),
        *_bursts(results),
        *_http(results),
        *_lag_and_calls(results),
        *_backlog(results),
    ]


def p99_of(values: Sequence[float]) -> float:
    """For ratios of 99th percentiles."""
    return percentile(values, 0.99)


def _open(target: str, why: str = "not measured") -> Verdict:
    return Verdict(target=target, measured=why, met=None)


def _ratio(target: str, found: Ratio, most: float, note: str) -> Verdict:
    unsure = found.low <= most < found.high or found.high > most >= found.value
    text = f"{found} x, {note}" + ("; the interval holds the target" if unsure else "")
    return Verdict(target=target, measured=text, met=found.value <= most)


def _join(results: Results) -> Iterator[Verdict]:
    usher, direct = results.time_to_join_s("usher"), results.time_to_join_s("direct")
    first = "Time to join one at a time: p50 <= 1.03 x direct"
    second = "Time to join one at a time: p99 <= 1.10 x direct"
    if not usher or not direct:
        yield from (_open(first), _open(second))
        return
    both = f"{median(usher):.3f} s against {median(direct):.3f} s (n {len(usher)}, {len(direct)})"
    yield _ratio(first, ratio(usher, direct), 1.03, both)
    if min(len(usher), len(direct)) < ENOUGH_FOR_P99:
        yield _open(second, f"too few samples ({len(usher)}, {len(direct)})")
        return
    both = f"{p99_of(usher):.3f} s against {p99_of(direct):.3f} s"
    yield _ratio(second, ratio(usher, direct, of=p99_of), 1.10, both)


def _direct_placement(results: Results) -> Iterator[Verdict]:
    for kind, name, most in (
        (Kind.SLOTS, "thread executor", 0.35),
        (Kind.PROCESS, "process executor", 0.50),
    ):
        target = f"Direct placement, one at a time, {name}: p50 <= {most} x direct"
        ours, theirs = (results.time_to_join_s(one, kind) for one in ("usher-direct", "direct"))
        if ours and theirs:
            note = f"{median(ours):.3f} s against {median(theirs):.3f} s"
            note += f" (n {len(ours)}, {len(theirs)})"
            yield _ratio(target, ratio(ours, theirs), most, note)
        else:
            yield _open(target)
    target = "Direct placement, one at a time, thread executor: p99 <= 0.6 x direct"
    ours, theirs = (results.time_to_join_s(one) for one in ("usher-direct", "direct"))
    if min(len(ours), len(theirs)) >= ENOUGH_FOR_P99:
        note = f"{p99_of(ours):.3f} s against {p99_of(theirs):.3f} s"
        yield _ratio(target, ratio(ours, theirs, of=p99_of), 0.6, note)
    else:
        yield _open(target, f"too few samples ({len(ours)}, {len(theirs)})")
    target = "Direct placement, click to first sound: p50 <= 0.6 x token dispatch"
    ours, theirs = (
        [one["heard_ms"] / 1000 for one in results.sounds(name)]
        for name in ("usher-direct", "token")
    )
    if ours and theirs:
        note = f"{median(ours):.3f} s against {median(theirs):.3f} s (n {len(ours)})"
        yield _ratio(target, ratio(ours, theirs), 0.6, note)
    else:
        yield _open(target)
    yield _direct_burst(results)


def _direct_burst(results: Results) -> Verdict:
    target = (
        f"Direct placement, burst of {TARGET_BURST}: {TARGET_BURST} of {TARGET_BURST}, "
        "the last <= 0.4 x direct calls' and <= 1.2 s"
    )
    ours, theirs = (
        results.bursts(Kind.SLOTS, TARGET_BURST, name) for name in ("usher-direct", "direct")
    )
    if not ours or not theirs:
        return _open(target)
    last, direct = (median([last_s(burst) or 0.0 for burst in bursts]) for bursts in (ours, theirs))
    least = min(exactly_one(burst) for burst in ours)
    return Verdict(
        target=target,
        measured=f"{least} of {TARGET_BURST} at least; last {last:.2f} s against {direct:.2f} s "
        f"(medians of {len(ours)}, {len(theirs)})",
        met=least == TARGET_BURST and last <= min(0.4 * direct, 1.2),
    )


def _bursts(results: Results) -> Iterator[Verdict]:
    for kind, most_s, name in (
        (Kind.SLOTS, 3.0, "thread executor"),
        (Kind.CPU, 8.0, "default CPU load report"),
    ):
        all_of_them = f"{TARGET_BURST} of {TARGET_BURST}"
        target = f"Burst of {TARGET_BURST}, {name}: {all_of_them}, the last within {most_s:.0f} s"
        bursts = results.bursts(kind, TARGET_BURST, "usher")
        if not bursts:
            yield _open(target)
            continue
        last = [last_s(burst) or 0.0 for burst in bursts]
        complete = [exactly_one(burst) for burst in bursts]
        yield Verdict(
            target=target,
            measured=f"{min(complete)} of {TARGET_BURST} at least; last {median(last):.2f} s "
            f"(median of {len(last)}, worst {max(last):.2f} s)",
            met=min(complete) == TARGET_BURST and median(last) <= most_s,
        )
    yield from _two_agent_servers(results)
    yield _pacing(results)


def _two_agent_servers(results: Results) -> Iterator[Verdict]:
    count = 2 * SLOTS_OF_TWO
    for name in USHERS:
        target = f"Burst of {count}, {count} slots on two agent servers: "
        target += f"{count} of {count}, none twice, {CONTENDERS[name].title}"
        bursts = results.bursts(Kind.TWO, count, name)
        if not bursts:
            yield _open(target)
            continue
        complete = min(exactly_one(burst) for burst in bursts)
        twice = sum(session["agents"] > 1 for burst in bursts for session in burst)
        last = median([last_s(burst) or 0.0 for burst in bursts])
        yield Verdict(
            target=target,
            measured=f"{complete} of {count} at least, {twice} twice; last {last:.2f} s "
            f"(median of {len(bursts)})",
            met=complete == count,
        )


def _pacing(results: Results) -> Verdict:
    target = f"Burst of {TARGET_BURST}: last within 1.15 x the best pace of direct calls"
    whole = {
        pace: [one["last_s"] for one in bursts]
        for pace, bursts in results.paces().items()
        if all(one["exactly_one"] == TARGET_BURST for one in bursts)
    }
    usher = whole.pop("usher", None)
    if usher is None or not whole:
        return _open(target)
    best = min(whole, key=lambda pace: median(whole[pace]))
    note = f"{median(usher):.2f} s against {median(whole[best]):.2f} s ({best}; n {len(usher)})"
    return _ratio(target, ratio(usher, whole[best]), 1.15, note)


def _http(results: Results) -> Iterator[Verdict]:
    others = ("background", "BackgroundTasks"), ("taskiq", "taskiq")
    for (name, words), most in zip(others, (1.3, 0.95), strict=True):
        target = f"HTTP answer, one at a time: p50 <= {most} x {words}"
        ours, theirs = (
            [one["answered_ms"] for one in results.joins(which)] for which in ("usher", name)
        )
        if ours and theirs:
            note = f"{median(ours):.1f} ms against {median(theirs):.1f} ms (n {len(ours)})"
            yield _ratio(target, ratio(ours, theirs), most, note)
        else:
            yield _open(target)
    for (name, words), most in zip(others, (1.15, 0.7), strict=True):
        target = f"HTTP answer, {TARGET_BURST} at once: p99 <= {most} x {words}"
        ours = results.answers_at_once_ms(TARGET_BURST, "usher")
        theirs = results.answers_at_once_ms(TARGET_BURST, name)
        if min(len(ours), len(theirs)) >= ENOUGH_FOR_P99:
            note = f"{p99_of(ours):.0f} ms against {p99_of(theirs):.0f} ms (n {len(ours)})"
            yield _ratio(target, ratio(ours, theirs, of=p99_of), most, note)
        else:
            yield _open(target, f"too few samples ({len(ours)}, {len(theirs)})")
    for (name, words), least in zip(others, (1.4, 0.9), strict=True):
        target = f"HTTP: requests/s per core of web >= {least} x {words}"
        ours, theirs = (
            [one["per_core_s"] for one in results.http(which)] for which in ("usher", name)
        )
        if ours and theirs:
            found = median(ours) / median(theirs)
            text = f"{found:.2f} x, {median(ours):.0f} against {median(theirs):.0f}"
            yield Verdict(target=target, measured=f"{text} (n {len(ours)})", met=found >= least)
        else:
            yield _open(target)


def _lag_and_calls(results: Results) -> Iterator[Verdict]:
    target = "Detection lag (ACTIVE to `joined`): p99 <= 100 ms"
    lags = results.lags_ms("usher")
    high = p99(lags)
    if high is None:
        yield _open(target, f"too few samples ({len(lags)})")
    else:
        text = f"{high:.0f} ms (p50 {median(lags):.0f} ms, n {len(lags)})"
        yield Verdict(target=target, measured=text, met=high <= 100)
    for name in USHERS:
        title = CONTENDERS[name].title
        livekit = f"{title}: <= 3 LiveKit calls for a session"
        redis = f"{title}: <= 18 Redis commands sent for a session, and <= 100 within scripts"
        counted = results.of("calls").get(name)
        if counted is None:
            yield from (_open(target) for target in (livekit, redis))
            continue
        asked = sum(counted["livekit"].values())
        yield Verdict(target=livekit, measured=f"{asked:.1f}", met=asked <= 3)
        sent, inside = redis_commands(counted["redis"])
        text = f"{sent:.1f} sent by processes, and {inside:.1f} more by scripts inside Redis"
        yield Verdict(target=redis, measured=text, met=sent <= 18 and inside <= 100)


def redis_commands(counted: dict[str, float]) -> tuple[float, float]:
    """Return how many a session takes: sent by processes, and by scripts."""
    inside = sum(count for name, count in counted.items() if name.startswith("script "))
    return sum(counted.values()) - inside, inside


def _backlog(results: Results) -> Iterator[Verdict]:
    found = results.backlog()
    if found is None:
        yield _open("Backlog of 100,000")
        return
    count = found["accepted"]
    size = f"Backlog of {count:,}"
    lost = found["never_dispatched"]
    yield Verdict(
        target=f"{size}: none lost",
        measured=f"{lost} never dispatched, {found['dispatched_twice']} twice",
        met=lost == 0,
    )
    yield Verdict(
        target=f"{size}: in order",
        measured=f"no more than {found['late_most']} places after its turn "
        f"(p99 {found['late_p99']}); {IN_ORDER_WITHIN} are dispatched or asked at once",
        met=(found["late_most"] or 0) <= IN_ORDER_WITHIN,
    )
    each = found["redis_bytes_each"]
    yield Verdict(
        target=f"{size}: <= 2 KB for each that waits",
        measured=f"{each:.0f} bytes",
        met=each <= 2048,
    )
    rate = found["dispatches_per_worker_core_s"]
    yield Verdict(
        target=f"{size}: >= 200 dispatches/s per worker core",
        measured=f"{rate:.0f} ({found['dispatches_per_s']:.0f}/s in all)",
        met=rate >= 200,
    )
