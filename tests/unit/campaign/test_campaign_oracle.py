"""The campaign's oracle, on evidence made by hand, honest and not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.faults.campaign.oracle import RoundResult
from tests.faults.campaign.plan import SESSIONS, Behaviour, Kind, Person, make_plan
from tests.faults.campaign.recovery import ANSWERS_AGAIN_S, CRASH, DISTURBS_S, LATE_S
from tests.faults.campaign.report import Summary, percentile
from tests.support.campaign_story import DISPATCH, ROOM, WORD_EVERY_S, Story, found, honest


def test_an_honest_session_is_no_finding() -> None:
    result = honest().record("ended", agent="one").judged()

    assert found(result) == []
    assert result.joins_s == (pytest.approx(0.6),)
    assert result.accepted == 1


def test_a_person_without_an_agent_and_without_a_word_is_lost() -> None:
    story = Story().accepted(1.0).listed(1.2).person(1.5, 40.0).final()

    assert found(story.record("ended").judged()) == ["lost"]


def test_a_person_who_is_told_in_time_is_not_lost() -> None:
    story = Story().accepted(1.0).listed(1.2).person(1.5, 40.0).final()
    story.fault(2.0, Kind.AGENT, 7).record("failed", "no_agent_online", ended_at=19.0)

    assert found(story.judged()) == []


def test_a_person_who_is_told_too_late_is_lost() -> None:
    story = Story().accepted(1.0).listed(1.2).person(1.5, 60.0).final()
    story.fault(20.0, Kind.AGENT, 7).record("failed", "no_agent_online", ended_at=50.0)

    assert found(story.judged()) == ["lost"]


def test_a_dispatch_that_fails_after_its_deadline_is_lost_even_if_nobody_was_there() -> None:
    story = Story().accepted(1.0).fault(2.0, Kind.AGENT, 7).final()
    story.record("failed", "no_agent_online", ended_at=27.0, deadline_at=21.0)

    assert found(story.judged()) == ["lost"]


@pytest.mark.parametrize(
    ("faults", "verdict"),
    [
        (
            [
                ("dispatch", Kind.FREEZE_WORKER, 18.0, 26.0),
                ("dispatch2", Kind.DISPATCH, 21.0, None),
            ],
            [],
        ),
        ([("dispatch", Kind.FREEZE_WORKER, 18.0, 26.0)], ["lost"]),
        ([("dispatch", Kind.DISPATCH, 21.0, None), ("verify", Kind.VERIFY, 21.0, None)], ["lost"]),
    ],
)
def test_a_deadline_stands_still_while_no_dispatch_worker_is_there(
    faults: list[tuple[str, Kind, float, float | None]], verdict: list[str]
) -> None:
    story = Story().accepted(1.0).fault(2.0, Kind.AGENT, 7).final()
    for program, kind, at, until in faults:
        story.fault(at, kind, program=program, until=until)
    story.record("failed", "no_agent_online", ended_at=27.0, deadline_at=21.0)

    assert found(story.judged()) == verdict


def test_an_agent_that_lived_only_between_two_looks_starts_the_clock_anew() -> None:
    story = Story().accepted(1.0).listed(1.2).joined(8.0, "one", pid=7)
    story.fault(8.1, Kind.JOB, 7).listed(8.2, "one").listed(29.0, "two").final()
    story.person(1.5, 40.0, ("two", 29.0, 40.0))

    assert found(story.record("ended").judged()) == []


def test_whoever_leaves_before_the_deadline_is_not_lost() -> None:
    story = Story().accepted(1.0).listed(1.2).person(1.5, 15.0).final()

    assert found(story.record("ended").judged()) == []


def test_the_deadline_starts_anew_when_an_agent_is_lost_and_a_dead_one_in_the_list_is_none() -> (
    None
):
    story = Story().accepted(1.0).person(1.5, 60.0, ("one", 1.6, 20.0)).listed(1.6, "one")
    story.joined(1.6, "one", pid=7)
    story.fault(20.0, Kind.JOB, 7).listed(41.0).final()  # LiveKit lists the dead one for 21 s

    (finding,) = story.record("ended").judged().findings

    assert (finding.what, finding.at) == ("lost", 20.0)


def test_while_livekit_is_away_nobody_is_lost() -> None:
    story = Story().accepted(1.0).listed(1.2).person(1.5, 60.0).unlisted(10.0).listed(50.0, "one")

    assert found(story.joined(50.0, "one", pid=7).left(61.0, "one").record("ended").judged()) == []


@pytest.mark.parametrize("state", ["queued", "waiting", "accepted"])
def test_a_dispatch_without_an_end_is_lost(state: str) -> None:
    assert found(honest().record(state).judged()) == ["lost"]


def test_a_session_that_everybody_has_left_and_that_is_still_joined_is_unended() -> None:
    assert found(honest().record("joined").judged()) == ["unended"]


def test_a_dispatch_that_the_product_has_forgotten_is_lost() -> None:
    assert found(honest().no_record().judged()) == ["lost"]


def test_what_was_not_accepted_cannot_be_lost() -> None:
    story = Story().accepted(1.0, status=503).accepted(2.0, status=0).fault(0.5, Kind.REDIS, 9)

    result = story.judged()

    assert found(result) == []
    assert (result.answers, result.accepted) == ({"503": 1, "none": 1}, 0)


def test_two_living_agents_for_longer_than_a_recovery_are_doubled() -> None:
    story = honest().listed(10.0, "one", "two").joined(10.0, "two", pid=8)

    result = story.listed(16.0, "two").record("ended").judged()

    assert found(result) == ["doubled"]
    assert result.overlaps_s == (pytest.approx(6.0),)


def test_two_agents_during_a_recovery_are_counted_and_no_finding() -> None:
    story = honest().listed(10.0, "one", "two").joined(10.0, "two", pid=8)

    result = story.listed(13.0, "two").record("ended").judged()

    assert found(result) == []
    assert result.overlaps_s == (pytest.approx(3.0),)


def test_an_agent_that_has_left_by_its_own_log_does_not_double() -> None:
    story = honest().listed(10.0, "one", "two").joined(9.0, "two", pid=8).left(12.0, "two")

    result = story.listed(25.0, "one").record("ended").judged()

    assert found(result) == []
    assert result.overlaps_s == (pytest.approx(2.0),)
    assert result.listed_overlaps_s == (pytest.approx(15.0),)


def test_a_dead_agent_that_stays_listed_beside_a_new_one_for_ever_is_doubled() -> None:
    story = Story().accepted(1.0).listed(1.6, "one").joined(1.6, "one", pid=7)
    story.person(1.5, 44.0, ("one", 1.6, 9.0), ("two", 10.0, 44.0))
    story.fault(9.0, Kind.JOB, 7).listed(10.0, "one", "two").joined(10.0, "two", pid=8)

    assert found(story.listed(45.0).left(44.0, "two").record("ended").judged()) == ["doubled"]


def test_a_failure_without_a_reason_is_unexplained() -> None:
    (finding,) = honest().record("failed").judged().findings

    assert (finding.what, finding.detail) == ("unexplained", "failed without a reason")


def test_a_failure_that_nothing_has_caused_is_unexplained() -> None:
    story = honest().fault(10.0, Kind.BEAT, 9)

    assert found(story.record("failed", "no_agent_online", ended_at=19).judged()) == ["unexplained"]


def test_a_failure_whose_cause_lies_long_before_is_unexplained() -> None:
    story = honest().fault(10.0, Kind.LIVEKIT, 9)

    assert found(story.record("failed", "livekit_unreachable").judged()) == ["unexplained"]


def test_a_failure_with_its_cause_is_explained() -> None:
    story = honest().fault(10.0, Kind.LIVEKIT, 9)

    assert found(story.record("failed", "livekit_unreachable", ended_at=19).judged()) == []


def test_nobody_came_is_no_reason_when_somebody_had_met_the_agent() -> None:
    assert found(honest().record("cancelled", "nobody_came").judged()) == ["unexplained"]


def test_nobody_came_is_true_of_somebody_who_left_before_there_was_an_agent() -> None:
    story = Story().accepted(1.0).listed(1.2).person(1.5, 5.0).listed(2.0, "one").listed(15.0)
    story.joined(6.0, "one", pid=7)  # it was a while before the agent knew that it had joined

    assert found(story.record("cancelled", "nobody_came").final().judged()) == []


def test_an_agent_that_only_the_product_has_seen_is_unexplained() -> None:
    story = Story().accepted(1.0).listed(1.2).person(1.5, 10.0).final()

    assert found(story.record("ended", agent="nobody").judged()) == ["unexplained"]


def test_an_agent_in_the_room_of_a_dispatch_that_is_over_is_a_ghost() -> None:
    assert found(honest().final("one").record("ended").judged()) == ["ghost"]


def test_a_recovery_is_measured_from_the_kill_to_the_next_agent_in_the_list() -> None:
    story = honest().fault(10.0, Kind.JOB, 7).listed(13.5, "one", "two").joined(13.4, "two", pid=8)
    story.listed(14.0, "two").left(31.0, "two")

    (recovery,) = story.record("ended").judged().recoveries

    assert recovery.took_s == pytest.approx(3.5)
    assert recovery.other_server_online


def test_what_a_program_takes_by_itself_is_no_part_of_a_recovery() -> None:
    story = honest().visit(agent=Behaviour.SLOW, starts_in_s=5.0).fault(10.0, Kind.JOB, 7)
    story.listed(17.5, "one", "two").joined(17.4, "two", pid=8).listed(18.0, "two")

    (recovery,) = story.left(31.0, "two").record("ended").judged().recoveries

    assert recovery.took_s == pytest.approx(2.5)


def test_a_recovery_while_the_other_agent_server_was_down_counts_apart() -> None:
    story = honest().fault(8.0, Kind.AGENT, 99).fault(10.0, Kind.JOB, 7).listed(18.0, "two")

    (recovery,) = story.joined(18.0, "two", pid=8).record("ended").judged().recoveries

    assert not recovery.other_server_online


def test_an_agent_that_is_there_and_does_not_answer_is_none() -> None:
    story = Story().accepted(1.0).listed(1.6, "one").joined(1.6, "one", pid=7).left(41.0, "one")
    story.person(1.5, 40.0, ("one", 1.6, 12.0)).listed(41.0).final()

    (finding,) = story.record("ended", agent="one").judged().findings

    assert finding.what == "lost"
    assert finding.at == pytest.approx(12.0, abs=WORD_EVERY_S)


def test_an_agent_that_leaves_of_itself_does_not_start_the_clock_anew() -> None:
    story = Story().accepted(1.0).listed(1.6, "one").joined(1.6, "one", pid=7).left(15.0, "one")
    story.person(1.5, 32.0).listed(15.0).final()

    assert found(story.record("ended", agent="one").judged()) == ["lost"]


def ended_at_15_s(why: str) -> Story:
    """The person waits on until 32 s."""
    story = Story().accepted(1.0).listed(1.6, "one").joined(1.6, "one", pid=7).listed(15.0)
    story.record("ended", agent="one").person(1.5, 32.0).final()
    return story.raises(15.0, "one") if why == "job crashed" else story.left(15.0, "one", why=why)


def test_an_agent_that_fails_starts_the_clock_anew() -> None:
    assert found(ended_at_15_s("job crashed").judged()) == []


def test_an_agent_whose_server_stops_starts_the_clock_anew() -> None:
    story = ended_at_15_s("parent process shutdown")

    assert found(story.fault(12.0, Kind.DRAIN, 6, 7).judged()) == []


@pytest.mark.parametrize(
    ("why", "at", "pid"),
    [
        pytest.param("parent process shutdown", 12.0, 8, id="another agent server stops"),
        pytest.param("parent process shutdown", 15.5, 7, id="its agent server stops later"),
        pytest.param("surplus agent", 12.0, 7, id="its agent server stops and waits for it"),
    ],
)
def test_an_agent_that_usher_itself_has_ended_does_not_start_the_clock_anew(
    why: str, at: float, pid: int
) -> None:
    assert found(ended_at_15_s(why).fault(at, Kind.DRAIN, pid).judged()) == ["lost"]


def test_a_person_in_a_second_tab_has_a_right_to_answers_too() -> None:
    story = honest().accepted(2.0).person(3.0, 29.0, who="ann's other tab")

    assert found(story.record("ended", agent="one").judged()) == ["lost"]


def back_again(*, first_answer: float, gap_s: float = 1.0, **visit: Any) -> Story:
    """Ann leaves at 10 s, is in the room again at 12 s, and answered from then to 25 s."""
    story = Story().visit(person=Person.RELOADS, **visit).accepted(1.0)
    story.person(1.5, 10.0, ("one", 1.6, 10.0)).accepted(11.5)
    story.person(12.0, 25.0, ("one", first_answer, 25.0), back_after_s=gap_s)
    story.listed(1.6, "one").joined(1.6, "one", pid=7).left(26.0, "one").listed(26.0).final()
    return story.record("ended", agent="one")


def test_a_return_that_is_answered_in_time_is_measured() -> None:
    result = back_again(first_answer=14.0, gap_s=0.3).judged()

    (back,) = result.returns
    assert found(result) == []
    assert (back.gap_s, back.answered, back.undisturbed) == (0.3, True, True)
    assert back.waited_s == pytest.approx(2.0, abs=WORD_EVERY_S)
    text = Summary(command="", rounds=[{"seed": 1, **result.as_json()}]).as_markdown()
    assert "| 0.3 s | 1 times, p50 2.100 s" in text


def test_a_return_that_is_answered_too_late_is_unanswered() -> None:
    story = back_again(first_answer=12.0 + ANSWERS_AGAIN_S + LATE_S + 0.1)

    assert found(story.judged()) == ["unanswered"]


def test_a_return_that_is_never_answered_is_unanswered() -> None:
    result = back_again(first_answer=99.0).judged()

    assert found(result) == ["unanswered"]
    assert not result.returns[0].answered


@pytest.mark.parametrize(
    ("deletes_at", "left_at", "lost"),
    [
        pytest.param(11.8, 11.9, True, id="while she joined"),
        pytest.param(10.5, 10.8, False, id="long before she joined"),
        pytest.param(13.0, 13.2, False, id="after she had joined"),
    ],
)
def test_a_person_who_joins_a_room_that_is_being_deleted_is_owed_an_explicit_failure(
    deletes_at: float, left_at: float, lost: bool
) -> None:
    """LiveKit (1.13.5) has lost her, and no agent can be brought to where she is."""

    def story() -> Story:
        told = Story().visit(person=Person.RELOADS, agent=Behaviour.DELETES).accepted(1.0)
        told.person(1.5, 10.0, ("one", 1.6, 10.0)).accepted(11.5)
        told.person(12.0, 40.0, back_after_s=1.0).listed(1.6, "one").joined(1.6, "one", pid=7)
        told.deletes_room(deletes_at, "one").left(left_at, "one").listed(left_at)
        return told.listed(41.0)

    failed = story().record("failed", "livekit_unreachable", ended_at=31.0).final()
    assert found(failed.judged()) == ([] if lost else ["unanswered", "unexplained"])
    # Saying nothing is not excused.
    assert "lost" in found(story().record("ended", agent="one", ended_at=41.0).final().judged())


def test_an_agent_that_starts_slowly_may_answer_a_return_so_much_later() -> None:
    late = {"first_answer": 12.0 + ANSWERS_AGAIN_S + LATE_S + 4.0}
    slow = {"agent": Behaviour.SLOW}

    assert found(back_again(**late, **slow, starts_in_s=5.0).judged()) == []
    assert found(back_again(**late, **slow, starts_in_s=1.0).judged()) == ["unanswered"]


def test_a_person_who_leaves_before_the_time_is_up_says_nothing_of_a_return() -> None:
    story = Story().visit(person=Person.RELOADS).accepted(1.0).person(1.5, 10.0, ("one", 1.6, 10.0))
    story.listed(1.6, "one").joined(1.6, "one", pid=7).left(26.0, "one").listed(26.0)

    result = story.person(12.0, 15.0, back_after_s=1.0).record("ended", agent="one").judged()

    assert (found(result), result.returns) == ([], ())


@pytest.mark.parametrize(
    ("kind", "at", "pid", "room", "touches"),
    [
        pytest.param(Kind.REDIS, 5.0, 1, "", True, id="a server that all need"),
        pytest.param(Kind.AGENT, 11.0, 99, "", True, id="an agent server"),
        pytest.param(Kind.DRAIN, 11.0, 99, "", True, id="an agent server that is stopped"),
        pytest.param(Kind.JOB, 11.0, 99, "", False, id="another session's job"),
        pytest.param(Kind.FREEZE_JOB, 11.0, 7, "", True, id="its own job"),
        pytest.param(Kind.FOREIGN, 11.0, 0, "elsewhere", False, id="another room"),
        pytest.param(Kind.FOREIGN, 11.0, 0, ROOM, True, id="its own room"),
        pytest.param(Kind.DISPATCH, 13.0, 1, "", True, id="meanwhile"),
        pytest.param(Kind.DISPATCH, 2.0, 1, "", False, id="long before"),
        pytest.param(Kind.DISPATCH, 24.0, 1, "", False, id="after the time was up"),
    ],
)
def test_a_fault_excuses_only_the_returns_that_can_have_felt_it(
    kind: Kind, at: float, pid: int, room: str, touches: bool
) -> None:
    result = back_again(first_answer=20.0).fault(at, kind, pid, room=room).judged()

    assert found(result) == ([] if touches else ["unanswered"])
    assert result.returns[0].undisturbed is not touches


def test_it_is_known_of_every_fault_how_long_it_is_felt() -> None:
    assert set(DISTURBS_S) == set(Kind)


def test_a_person_who_is_never_answered_though_the_record_says_joined_is_unanswered() -> None:
    story = Story().accepted(1.0).listed(1.6, "one").joined(1.6, "one", pid=7).left(16.0, "one")
    story.person(1.5, 15.0).listed(16.0).final()

    (finding,) = story.record("ended", agent="one", joined_at=2.0).judged().findings

    assert (finding.what, finding.at) == ("unanswered", 2.0)


def test_a_fault_excuses_that_a_person_is_not_answered_though_the_record_says_joined() -> None:
    story = Story().accepted(1.0).listed(1.6, "one").joined(1.6, "one", pid=7).left(16.0, "one")
    story.person(1.5, 15.0).listed(16.0).final().fault(1.0, Kind.LIVEKIT, 9)

    assert found(story.record("ended", agent="one", joined_at=2.0).judged()) == []


def test_a_person_who_leaves_right_after_the_agent_has_joined_is_no_finding() -> None:
    story = Story().accepted(1.0).listed(12.0, "one").joined(12.0, "one", pid=7).left(16.0, "one")
    story.person(1.5, 15.0).listed(16.0).final()

    assert found(story.record("ended", agent="one", joined_at=12.0).judged()) == []


def test_two_agents_that_answer_the_same_words_for_longer_than_a_recovery_are_doubled() -> None:
    story = Story().accepted(1.0).listed(1.6, "one").joined(1.6, "one", pid=7).left(31.0, "one")
    story.person(1.5, 30.0, ("one", 1.6, 30.0), ("two", 10.0, 17.0)).listed(31.0).final()

    result = story.record("ended", agent="one").judged()

    assert found(result) == ["doubled"]
    assert result.double_answers_s == (pytest.approx(6.3),)


def test_two_agents_that_answer_during_a_recovery_are_counted_and_no_finding() -> None:
    story = Story().accepted(1.0).listed(1.6, "one").joined(1.6, "one", pid=7).left(31.0, "one")
    story.person(1.5, 30.0, ("one", 1.6, 30.0), ("two", 10.0, 13.0), ("two", 20.0, 23.0))

    result = story.listed(31.0).final().record("ended", agent="one").judged()

    assert found(result) == []
    assert len(result.double_answers_s) == 2


def test_two_agents_that_follow_each_other_are_not_doubled() -> None:
    story = Story().accepted(1.0).listed(1.6, "one").joined(1.6, "one", pid=7).left(31.0, "one")
    story.person(1.5, 30.0, ("one", 1.6, 15.0), ("two", 15.1, 30.0)).listed(31.0).final()

    result = story.record("ended", agent="one").judged()

    assert (found(result), result.double_answers_s) == ([], ())


@pytest.mark.parametrize("reason", ["agent_crashed", "agent_lost"])
def test_an_agent_that_fails_explains_that_its_session_failed(reason: str) -> None:
    def story() -> Story:
        return honest().record("failed", reason, ended_at=19.0)

    assert found(story().judged()) == ["unexplained"]
    assert found(story().starts(9.0, "zero", pid=6).raises(9.5, "zero").judged()) == []


def test_an_agent_that_fails_is_no_reason_to_say_that_none_joined_in_time() -> None:
    story = honest().starts(9.0, "zero", pid=6).raises(9.5, "zero")

    assert found(story.record("failed", "join_timeout", ended_at=19.0).judged()) == ["unexplained"]


def test_a_stopped_agent_server_explains_that_none_was_online() -> None:
    story = honest().fault(10.0, Kind.DRAIN, 9)

    assert found(story.record("failed", "no_agent_online", ended_at=19.0).judged()) == []


def test_a_session_that_everybody_has_left_and_that_is_still_leaving_is_unended() -> None:
    assert found(honest().record("leaving").judged()) == ["unended"]


def test_nobody_came_is_true_of_a_return_whose_person_has_gone_again() -> None:
    story = honest().accepted(35.0, dispatch_id="dsp_2").listed(36.0, "two").listed(50.0)
    story.joined(36.0, "two", pid=8).left(50.0, "two").record("ended", agent="one")

    ended = {"ended_at": 50.0, "agent": "two", "dispatch_id": "dsp_2"}
    assert found(story.record("cancelled", "nobody_came", **ended).judged()) == []


def test_the_recovery_from_an_agent_that_raises_is_measured_to_the_next_answer() -> None:
    story = Story().accepted(1.0).listed(1.6, "one").joined(1.6, "one", pid=7).raises(10.0, "one")
    story.person(1.5, 30.0, ("one", 1.6, 10.0), ("two", 12.5, 30.0)).listed(10.1)
    story.listed(12.0, "two").joined(12.0, "two", pid=8).left(31.0, "two").listed(31.0)

    (recovery,) = story.final().record("ended", agent="two").judged().recoveries

    assert (recovery.kind, recovery.took_s) == (CRASH, pytest.approx(2.0))
    assert recovery.answered_s == pytest.approx(2.5, abs=WORD_EVERY_S)


def test_the_recovery_from_a_stopped_agent_server_counts_from_the_end_of_its_agent() -> None:
    story = Story().accepted(1.0).listed(1.6, "one").joined(1.6, "one", pid=7)
    story.fault(10.0, Kind.DRAIN, 6, 7).left(13.0, "one", why="parent process shutdown")
    # A last answer of the old agent is still on its way when that has gone.
    story.person(1.5, 30.0, ("one", 1.6, 13.5), ("two", 14.5, 30.0)).listed(13.1)
    story.listed(14.5, "two").joined(14.5, "two", pid=8).left(31.0, "two").listed(31.0)

    result = story.final().record("ended", agent="two").judged()

    (recovery,) = result.recoveries
    assert (recovery.kind, recovery.took_s) == (Kind.DRAIN, pytest.approx(1.5))
    assert recovery.answered_s == pytest.approx(1.5, abs=WORD_EVERY_S)
    assert recovery.answered_s > 1.5
    assert (result.kills, result.freezes, result.drains) == (0, 0, 1)
    assert recovery.other_server_online


def test_the_report_tells_recoveries_from_a_dead_job_and_from_a_dead_agent_server_apart() -> None:
    def lost(kind: Kind, *, until: float) -> RoundResult:
        story = Story().accepted(1.0).listed(1.6, "one").joined(1.6, "one", pid=7)
        story.fault(10.0, kind, 7).listed(until, "two").joined(until, "two", pid=8)
        story.person(1.5, 30.0, ("one", 1.6, 10.0), ("two", until, 30.0)).left(31.0, "two")
        return story.listed(31.0).final().record("ended", agent="two").judged()

    results = [lost(Kind.JOB, until=12.0), lost(Kind.AGENT, until=15.0)]
    rounds = [{"seed": 1, **result.as_json()} for result in results]
    text = Summary(command="", rounds=rounds).as_markdown()

    assert "| dead job process | 1 times, p50 2.000 s" in text
    assert "| dead agent server | 1 times, p50 5.000 s" in text


def test_an_answer_after_a_second_fails_the_campaign() -> None:
    late = Story().accepted(1.0, took_s=1.2).person(3.0, 5.0).listed(3.0, "one").listed(6.0)
    result = late.joined(3.0, "one", pid=7).record("ended").judged()

    assert result.slow_answers == (1.2,)
    assert not Summary(command="", rounds=[{"seed": 1, **result.as_json()}]).passed


def test_the_time_in_which_the_driver_was_held_up_is_not_the_server_s() -> None:
    story = Story().accepted(1.0, took_s=1.2).person(3.0, 5.0).listed(3.0, "one").listed(6.0)
    story.driver.append({"t": 2.1, "event": "lag", "lag_s": 0.4})

    assert story.joined(3.0, "one", pid=7).record("ended").judged().slow_answers == ()


def test_the_report_of_an_honest_round_says_passed_and_that_of_a_lost_session_failed() -> None:
    good, bad = honest().record("ended").judged(), honest().no_record().judged()

    def text(result: RoundResult) -> str:
        return Summary(command="it", rounds=[{"seed": 1, **result.as_json()}]).as_markdown()

    assert ": passed." in text(good)
    assert ": **failed**." in text(bad)
    assert DISPATCH in text(bad)


def test_the_same_seed_gives_the_same_plan_and_every_kind_of_fault_and_session() -> None:
    def plan(seed: int, **more: Any) -> Any:
        return make_plan(seed=seed, number=0, sessions=100, kills=24, per_s=1.0, **more)

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)
    assert {fault.kind for fault in plan(1).faults} == set(Kind)
    sessions = [(visit.person, visit.agent) for visit in plan(1).visits]
    assert {kind: sessions.count(kind) for kind in SESSIONS} == SESSIONS
    assert {visit.agent for visit in plan(1, agents=(Behaviour.PLAIN,)).visits} == {Behaviour.PLAIN}


def test_only_a_part_of_the_sessions_is_odd_and_the_beginning_is_quiet() -> None:
    plan = make_plan(seed=1, number=0, sessions=100, kills=24, per_s=1.0)

    assert sum(SESSIONS.values()) == 100
    assert SESSIONS[Person.STAYS, Behaviour.PLAIN] == 45
    assert min(fault.at_s for fault in plan.faults) >= 20.0


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_a_value_that_occurred(share: float, expected: int) -> None:
    assert percentile(range(1, 101), share) == expected
