"""What the campaign's oracle says of tenants, of answers that are errors, and of processes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.campaign.isolation import REFUSES_S
from tests.faults.campaign.plan import NEIGHBOURS, Kind, make_plan
from tests.faults.campaign.processes import exits
from tests.faults.campaign.report import Summary
from tests.faults.gateway import PASSING
from tests.faults.refusing_redis import Refusal
from tests.support.campaign_story import Story, found, honest

THEIRS = "dsp_theirs"


def ended() -> Story:
    return honest().record("ended", agent="one")


@pytest.mark.parametrize("status", [429, 503])
def test_a_person_who_is_turned_away_while_redis_works_is_refused(status: int) -> None:
    assert found(ended().accepted(40.0, status=status).judged()) == ["refused"]


@pytest.mark.parametrize(
    ("asked_at", "excused"),
    [(39.0, False), (42.0, True), (46.0 + REFUSES_S - 0.1, True), (46.5 + REFUSES_S, False)],
)
def test_a_redis_that_answers_errors_excuses_a_503_until_a_while_after_it_works_again(
    asked_at: float, excused: bool
) -> None:
    story = ended().fault(40.0, Kind.REFUSES, until=46.0).accepted(asked_at, status=503)

    assert found(story.judged()) == ([] if excused else ["refused"])


@pytest.mark.parametrize("kind", NEIGHBOURS)
def test_what_a_neighbour_does_excuses_nothing(kind: Kind) -> None:
    refused = ended().fault(39.0, kind, until=45.0).accepted(40.0, status=503)
    failed = honest().fault(10.0, kind, until=15.0).record("failed", "no_capacity", ended_at=19.0)

    assert found(refused.judged()) == ["refused"]
    assert found(failed.judged()) == ["unexplained"]


def test_garbage_of_a_gateways_is_no_reason_to_fail() -> None:
    story = honest().fault(10.0, Kind.GARBAGE, until=12.0)

    assert found(story.record("failed", "livekit_unreachable", ended_at=19.0).judged()) == [
        "unexplained"
    ]


@pytest.mark.parametrize(("asked_at", "verdict"), [(17.8, []), (17.2, ["unexplained"])])
def test_garbage_for_all_of_the_last_attempt_is_one(asked_at: float, verdict: list[str]) -> None:
    story = honest().fault(17.5, Kind.GARBAGE, until=19.5)
    story.record("failed", "livekit_unreachable", asked_at=asked_at, ended_at=19.0)

    assert found(story.judged()) == verdict


def test_whoever_asks_for_as_long_as_a_page_waits_and_is_never_accepted_is_refused() -> None:
    story = ended().fault(40.0, Kind.REDIS, 9).gives_up_asking(60.0)

    assert found(story.judged()) == ["refused"]


def test_an_answer_that_is_nobodys_is_unexplained() -> None:
    assert found(ended().accepted(40.0, status=500).judged()) == ["unexplained"]
    assert found(ended().neighbour(40.0, 500).judged()) == ["unexplained"]


def test_a_neighbours_session_must_end_with_a_reason_like_everybodys() -> None:
    def theirs(state: str, reason: str = "") -> list[str]:
        story = ended().neighbour(40.0, 200, THEIRS).neighbour(41.0, 429)
        return found(story.neighbours_record(state, reason, dispatch_id=THEIRS).judged())

    assert theirs("cancelled", "cancelled_by_client") == []
    assert theirs("ended") == []
    assert theirs("failed") == ["unexplained"]
    assert theirs("queued") == ["lost"]
    assert found(ended().neighbour(40.0, 200, THEIRS).judged()) == ["lost"]


def test_a_neighbours_requests_are_counted_apart() -> None:
    story = ended().neighbour(40.0, 200, THEIRS).neighbour(40.1, 429).neighbour(40.2, 0)
    story.neighbours_record("ended", dispatch_id=THEIRS).fault(39.0, Kind.FLOOD)

    result = story.judged()

    assert (result.accepted, result.neighbours_sessions, result.bursts) == (1, 1, 1)
    assert result.neighbours_answers == {"200": 1, "429": 1, "none": 1}
    assert result.answers == {"200": 1}


def test_a_process_that_ends_by_itself_has_died() -> None:
    assert found(ended().exited(40.0, "dispatch").judged()) == ["died"]
    assert found(ended().exited(-1.0, "dispatch").judged()) == []  # while the stack was started


@pytest.mark.parametrize(
    ("kind", "program", "at", "excused"),
    [
        (Kind.DRAIN, "agent", 55.0, True),
        (Kind.DRAIN, "agent2", 55.0, False),
        (Kind.DISPATCH, "dispatch", 41.0, True),
        (Kind.DISPATCH, "dispatch", 55.0, False),
    ],
)
def test_a_process_that_was_hit_may_end(kind: Kind, program: str, at: float, excused: bool) -> None:
    hit = "agent" if kind is Kind.DRAIN else "dispatch"
    story = ended().fault(40.0, kind, 9, program=hit).exited(at, program)

    assert found(story.judged()) == ([] if excused else ["died"])


def test_what_does_not_work_with_all_faults_over_is_unhealed() -> None:
    assert found(ended().missing("process dispatch", "readyz: agent").judged()) == ["unhealed"] * 2
    assert found(ended().missing().judged()) == []


def test_supervisord_tells_who_has_ended_by_itself_and_who_was_killed(tmp_path: Any) -> None:
    log = tmp_path / "supervisord.log"
    log.write_text(
        "2026-11-29 21:04:32,138 WARN exited: beat (terminated by SIGKILL; not expected)\n"
        "2026-11-29 21:04:33,500 WARN exited: web (exit status 3; not expected)\n"
        "2026-11-29 21:04:33,600 INFO spawned: 'web' with pid 14384\n"
        "2026-11-29 21:04:52,610 INFO stopped: beat (exit status 0)\n"
    )

    (one,) = exits(log)

    assert (one["program"], one["how"]) == ("web", "exit status 3; not expected")


def test_a_plan_has_every_garbage_and_every_error_of_redis_in_turn() -> None:
    plan = make_plan(seed=1, number=0, sessions=100, kills=52, per_s=1.0)
    by_kind = {
        kind: {fault.how for fault in plan.faults if fault.kind is kind}
        for kind in (Kind.GARBAGE, Kind.REFUSES)
    }

    assert by_kind == {Kind.GARBAGE: set(PASSING), Kind.REFUSES: set(Refusal)}


def test_the_report_names_what_was_answered_wrongly() -> None:
    story = ended().fault(40.0, Kind.REFUSES, until=42.0).fault(50.0, Kind.GARBAGE, until=52.0)
    rounds = [{"seed": 1, **story.judged().as_json()}]

    text = Summary(command="", rounds=rounds).as_markdown()

    assert "| have Redis answer errors: OOM | 1 |" in text
    assert "| have a gateway answer garbage in LiveKit's place: 503 [] | 1 |" in text
    assert "1 times a Redis that answers errors, 2 answers of LiveKit's that were garbage" in text


def test_while_redis_refuses_no_deadline_can_be_kept() -> None:
    def late(until: float) -> list[str]:
        story = Story().accepted(1.0).fault(2.0, Kind.AGENT, 7).final()
        story.fault(20.0, Kind.REFUSES, until=until)
        return found(
            story.record("failed", "no_agent_online", ended_at=27.0, deadline_at=21.0).judged()
        )

    assert late(until=26.0) == []
    assert late(until=21.0) == ["lost"]
