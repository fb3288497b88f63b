"""Does the benchmark's page judge what was measured, and say so where it cannot?"""

from __future__ import annotations

from typing import Any

import pytest

from bench.procfiles import Kind
from bench.report.results import Results
from bench.report.tables import SECTIONS, must_hold
from bench.report.verdicts import verdicts


def _session(active_ms: float | None, *, agents: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "answered_ms": 5.0,
        "active_ms": active_ms,
        "assigned_ms": 200.0,
        "joined_at_ms": 250.0,
        "noticed_ms": None if active_ms is None else active_ms + 30,
        "agents": agents,
        **more,
    }


def _join(
    direct_ms: float,
    usher_ms: float,
    count: int,
    *,
    usher: str = "usher",
    kind: Kind = Kind.SLOTS,
) -> dict[str, Any]:
    return {
        f"{kind}/0/{name}": {"busy_percent": 5.0, "sessions": [_session(at_ms)] * count}
        for name, at_ms in (("direct", direct_ms), (usher, usher_ms), ("background", direct_ms))
    }


def _judged(raw: dict[str, Any], start: str) -> tuple[str, bool | None]:
    [found] = [one for one in verdicts(Results(raw)) if one.target.startswith(start)]
    return found.measured, found.met


@pytest.mark.parametrize(("usher_ms", "met"), [(300, True), (308, True), (310, False)])
def test_the_ratio_of_the_medians_is_what_is_judged(usher_ms: float, met: bool) -> None:
    raw = {"join": _join(300, usher_ms, 120)}
    assert _judged(raw, "Time to join one at a time: p50")[1] is met


def test_a_p99_of_few_samples_is_left_open() -> None:
    text, met = _judged({"join": _join(300, 300, 20)}, "Time to join one at a time: p99")
    assert met is None
    assert "too few" in text


@pytest.mark.parametrize(
    ("kind", "executor", "most_ms"),
    [(Kind.SLOTS, "thread", 105.0), (Kind.PROCESS, "process", 150.0)],
)
def test_direct_placement_is_judged_by_the_executor(
    kind: Kind, executor: str, most_ms: float
) -> None:
    target = f"Direct placement, one at a time, {executor} executor: p50"
    for usher_ms, met in ((most_ms, True), (most_ms + 2, False)):
        raw = {"join": _join(300, usher_ms, 30, usher="usher-direct", kind=kind)}
        assert _judged(raw, target)[1] is met


def _bursts(
    kind: Kind, last_ms: float, *, agents: int = 1, count: int = 40, usher: str = "usher"
) -> dict[str, Any]:
    sessions = [_session(300.0)] * (count - 1) + [_session(last_ms, agents=agents)]
    return {f"{kind}/0/{count}/{usher}": {"sessions": sessions}}


@pytest.mark.parametrize(("last_ms", "met"), [(1190, True), (1210, False)])
def test_a_burst_with_direct_placement_is_judged_beside_direct_calls(
    last_ms: float, met: bool
) -> None:
    ours = _bursts(Kind.SLOTS, last_ms, usher="usher-direct")
    target = "Direct placement, burst of 40"
    assert _judged({"burst": ours | _bursts(Kind.SLOTS, 4000, usher="direct")}, target)[1] is met
    assert _judged({"burst": ours | _bursts(Kind.SLOTS, 2900, usher="direct")}, target)[1] is False


@pytest.mark.parametrize(("agents", "met"), [(1, True), (0, False), (2, False)])
def test_a_burst_at_two_agent_servers_needs_each_of_its_agents_once(agents: int, met: bool) -> None:
    raw = {"burst": _bursts(Kind.TWO, 9000, agents=agents, count=160)}
    text, judged = _judged(
        raw, "Burst of 160, 160 slots on two agent servers: 160 of 160, none twice, (f)"
    )
    assert judged is met
    assert f"{agents > 1:d} twice" in text


@pytest.mark.parametrize(("ours_ms", "met"), [(600.0, True), (610.0, False)])
def test_the_first_sound_is_judged_beside_token_dispatch(ours_ms: float, met: bool) -> None:
    raw = {
        "sound": {
            f"{number}/{name}": {
                "token_ms": 10.0,
                "connected_ms": 100.0,
                "subscribed_ms": 200.0,
                "heard_ms": heard_ms,
                "agents": 1,
            }
            for number in range(3)
            for name, heard_ms in (("token", 1000.0), ("usher-direct", ours_ms))
        }
    }
    assert _judged(raw, "Direct placement, click to first sound")[1] is met
    assert "| (g) Usher, direct placement | 3 |" in SECTIONS["sound"](Results(raw))


@pytest.mark.parametrize(
    ("last_ms", "agents", "met"), [(2900, 1, True), (3100, 1, False), (2900, 2, False)]
)
def test_a_burst_needs_all_of_its_agents_in_time_and_none_twice(
    last_ms: float, agents: int, met: bool
) -> None:
    raw = {"burst": _bursts(Kind.SLOTS, last_ms, agents=agents)}
    assert _judged(raw, "Burst of 40, thread")[1] is met


def test_a_pace_that_loses_agents_is_not_the_best() -> None:
    def bursts(exactly_one: int, last_s: float) -> dict[str, Any]:
        return {"exactly_one": exactly_one, "last_s": last_s}

    raw = {
        "pacing": {
            "0/usher": bursts(40, 2.2),
            "0/all at once": bursts(39, 1.0),
            "0/8 in flight": bursts(40, 2.0),
        }
    }
    text, met = _judged(raw, "Burst of 40: last within")
    assert met is True
    assert "8 in flight" in text


def test_redis_commands_inside_scripts_are_told_from_those_sent() -> None:
    raw = {
        "calls": {
            "usher": {
                "livekit": {"CreateDispatch": 1.0, "ListParticipants": 1.5},
                "redis": {"web EVALSHA": 10.0, "verify EVALSHA": 21.0, "script HSET": 80.0},
            }
        }
    }
    text, met = _judged(raw, "(f) Usher: <= 18 Redis")
    assert met is False
    assert "31.0 sent by processes, and 80.0 more" in text
    assert _judged(raw, "(f) Usher: <= 3 LiveKit")[1] is True
    assert _judged(raw, "(g) Usher, direct placement: <= 18 Redis")[1] is None


def test_without_results_every_target_is_open_and_no_section_is_written() -> None:
    found = verdicts(Results({}))
    assert found
    assert {one.met for one in found} == {None}
    assert "open" in must_hold(found)
    assert [section(Results({})) for section in SECTIONS.values()] == [""] * len(SECTIONS)


def test_the_page_shows_a_session_without_an_agent_as_none() -> None:
    sessions = [_session(300.0), _session(None, agents=0)]
    raw = {"burst": {f"{Kind.SLOTS}/0/2/direct": {"sessions": sessions}}}
    assert "| 1 of 2 (50%) | 1 | 0 |" in SECTIONS["burst"](Results(raw))
