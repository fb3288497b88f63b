"""Would the campaign's oracle notice? Evidence made by hand, honest and not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from tests.faults.campaign.evidence import Event, read_evidence
from tests.faults.campaign.oracle import RoundResult, judge
from tests.faults.campaign.plan import Kind, make_plan
from tests.faults.campaign.report import Summary, percentile

ROOM, DISPATCH = "room", "dsp_1"
END = 100.0


class Story:
    """A round with one room, told event by event; it begins at 0 s and ends at 100 s."""

    def __init__(self) -> None:
        self.driver: list[Event] = [{"t": 0.0, "event": "begins"}]
        self.agents: list[Event] = []

    def accepted(self, at: float, *, took_s: float = 0.01, status: int = 200) -> Story:
        number = len(self.driver)
        self.driver += [
            {"t": at, "event": "asks", "room": ROOM, "ask": number},
            {
                "t": at + took_s,
                "event": "answered",
                "room": ROOM,
                "ask": number,
                "status": status,
                "took_s": took_s,
                "dispatch_id": DISPATCH if status == 200 else "",
            },
        ]
        return self

    def person(self, since: float, until: float) -> Story:
        self.driver += [
            {"t": since, "event": "present", "room": ROOM},
            {"t": until, "event": "absent", "room": ROOM},
        ]
        return self

    def listed(self, at: float, *agents: str) -> Story:
        listed = {agent: int(at * 1000) for agent in agents}
        self.driver.append({"t": at, "event": "listed", "room": ROOM, "agents": listed})
        return self

    def unlisted(self, at: float) -> Story:
        """LiveKit does not answer."""
        self.driver.append({"t": at, "event": "listed", "room": ROOM, "agents": None})
        return self

    def joined(self, at: float, agent: str, *, pid: int) -> Story:
        common = {"t": at, "room": ROOM, "job": f"job of {agent}", "pid": pid}
        self.agents.append({**common, "event": "agent_starts", "agent": agent})
        self.agents.append({**common, "event": "agent_joined"})
        return self

    def left(self, at: float, agent: str) -> Story:
        self.agents.append({"t": at, "event": "agent_left", "job": f"job of {agent}"})
        return self

    def fault(self, at: float, kind: Kind, *pids: int, program: str = "it") -> Story:
        self.driver.append(
            {
                "t": at,
                "event": "fault",
                "fault": len(self.driver),
                "kind": str(kind),
                "program": program,
                "pids": list(pids),
                "signal": "STOP" if kind.name.startswith("FREEZE") else "KILL",
                "hold_s": 0.0,
            }
        )
        return self

    def record(
        self,
        state: str,
        reason: str = "",
        *,
        ended_at: float = 90.0,
        deadline_at: float = END,
        agent: str = "",
    ) -> Story:
        body = {
            "state": state,
            "failure_reason": reason or None,
            "agent_identity": agent or None,
            "deadline_at_ms": int(deadline_at * 1000),
            "timeline": [{"at_ms": int(ended_at * 1000), "event": state}],
        }
        return self._record(200, body)

    def no_record(self) -> Story:
        return self._record(404, {})

    def _record(self, status: int, body: Mapping[str, Any]) -> Story:
        self.driver.append(
            {"t": 95.0, "event": "record", "dispatch_id": DISPATCH, "status": status, "body": body}
        )
        return self

    def final(self, *agents: str) -> Story:
        listed = dict.fromkeys(agents, 0)
        self.driver.append({"t": 99.0, "event": "final", "room": ROOM, "agents": listed})
        return self

    def judged(self) -> RoundResult:
        in_order = sorted(self.driver, key=lambda event: event["t"])
        in_order.append({"t": END, "event": "ends"})
        return judge(read_evidence(in_order, self.agents))


def honest() -> Story:
    """A session with one agent, from its request until everybody has left."""
    story = Story().accepted(1.0).person(1.5, 30.0)
    story.listed(1.2).listed(1.6, "one").joined(1.6, "one", pid=7).left(31.0, "one").listed(31.2)
    return story.final()


def found(result: RoundResult) -> list[str]:
    return [finding.what for finding in result.findings]


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


def test_an_agent_that_lived_only_between_two_looks_starts_the_clock_anew() -> None:
    story = Story().accepted(1.0).listed(1.2).person(1.5, 40.0).joined(8.0, "one", pid=7)
    story.fault(8.1, Kind.JOB, 7).listed(8.2, "one").listed(29.0, "two").final()

    assert found(story.record("ended").judged()) == []


def test_whoever_leaves_before_the_deadline_is_not_lost() -> None:
    story = Story().accepted(1.0).listed(1.2).person(1.5, 15.0).final()

    assert found(story.record("ended").judged()) == []


def test_the_deadline_starts_anew_when_an_agent_is_lost_and_a_dead_one_in_the_list_is_none() -> (
    None
):
    story = Story().accepted(1.0).person(1.5, 60.0).listed(1.6, "one").joined(1.6, "one", pid=7)
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
    story = Story().accepted(1.0, status=503).accepted(2.0, status=0)

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
    story = Story().accepted(1.0).person(1.5, 44.0).listed(1.6, "one").joined(1.6, "one", pid=7)
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


def test_a_recovery_while_the_other_agent_server_was_down_counts_apart() -> None:
    story = honest().fault(8.0, Kind.AGENT, 99).fault(10.0, Kind.JOB, 7).listed(18.0, "two")

    (recovery,) = story.joined(18.0, "two", pid=8).record("ended").judged().recoveries

    assert not recovery.other_server_online


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


def test_the_same_seed_gives_the_same_plan_and_every_kind_of_fault() -> None:
    def plan(seed: int) -> object:
        return make_plan(seed=seed, number=0, sessions=100, kills=24, per_s=1.0)

    assert plan(1) == plan(1)
    assert plan(1) != plan(2)
    kinds = {
        fault.kind
        for fault in make_plan(seed=1, number=0, sessions=100, kills=24, per_s=1.0).faults
    }
    assert kinds == set(Kind)


@pytest.mark.parametrize(("share", "expected"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)])
def test_a_percentile_is_a_value_that_occurred(share: float, expected: int) -> None:
    assert percentile(range(1, 101), share) == expected
