"""Does an explanation name the true cause of a session without an agent, and what to do?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dispatcher.domain.models import Attempt, Dispatch, FailureReason, State, TimelineEvent
from dispatcher.explain import explanation as explaining
from dispatcher.explain.explanation import Explanation, explain_parked, explain_unknown
from dispatcher.explain.incidents import incidents
from dispatcher.explain.stages import stages
from dispatcher.explain.texts import FAILURES, REJECTED
from tests.support.values import TIMINGS, a_dispatch
from worker_agent.decisions import Reason

START_MS = 1_000_000
REJECTS = set(Reason) - {Reason.CLAIMED, Reason.ADOPTED, Reason.DELEGATED}


def events(*told: Any) -> tuple[TimelineEvent, ...]:
    """Timeline events from (ms since the start, name, generation, detail)."""
    found = []
    for at_ms, event, *rest in told:
        generation = rest[0] if rest else 1
        detail = rest[1] if len(rest) > 1 else {}
        found.append(
            TimelineEvent(at_ms=START_MS + at_ms, event=event, generation=generation, detail=detail)
        )
    return tuple(found)


SMOOTH = (
    (0, "queued"),
    (5, "dispatching"),
    (12, "dispatched"),
    (200, "offered"),
    (200, "accepted", 1, {"agent_server_id": "server-1", "job_id": "AJ_1"}),
    (380, "agent_connected"),
    (390, "joined"),
)


def joined(*told: Any, **changes: Any) -> Dispatch:
    """A joined dispatch with that timeline."""
    return a_dispatch(state=State.JOINED, timeline=events(*told), time_to_join_ms=390, **changes)


def failed(reason: str, message: str = "it was", **changes: Any) -> Dispatch:
    """A dispatch that ended for that reason."""
    return a_dispatch(state=State.FAILED, failure_reason=reason, failure_message=message, **changes)


def explain(dispatch: Dispatch, **changes: float) -> Explanation:
    """The explanation, where settings differ from their defaults by `changes`."""
    return explaining.explain(dispatch, replace(TIMINGS, **changes))


def everything(explanation: Explanation) -> str:
    """All of its words."""
    parts = (explanation.headline, explanation.cause, explanation.advice, *explanation.evidence)
    return " ".join(parts)


@pytest.mark.parametrize("state", list(State))
def test_every_state_is_explained(state: State) -> None:
    explanation = explain(a_dispatch(state=state, failure_reason=FailureReason.NO_CAPACITY))

    assert explanation.headline
    assert explanation.cause
    assert explanation.advice
    assert "{" not in everything(explanation)


@pytest.mark.parametrize(
    "reason", [*FailureReason, *(f"rejected: {each}" for each in sorted(REJECTS))]
)
def test_every_reason_has_words_of_its_own(reason: str) -> None:
    explanation = explain(failed(reason))

    assert explanation.headline.startswith("Failed: ")
    assert explanation.headline != f"Failed: {reason}"
    assert "{" not in everything(explanation)


def test_the_cause_is_what_the_record_says() -> None:
    told = failed("no_capacity", "every slot of the 2 agent server(s) is taken; add agent servers")

    expected = "Every slot of the 2 agent server(s) is taken; add agent servers."
    assert explain(told).cause == expected
    assert explain(replace(told, state=State.WAITING)).cause == expected
    assert explain(failed("no_capacity", "")).cause == "The record gives no other reason."


def test_no_two_reasons_have_the_same_words() -> None:
    headlines = [words.headline for words in (*FAILURES.values(), *REJECTED.values())]

    assert len(set(headlines)) == len(headlines)


def test_a_reason_of_a_newer_release_is_shown_as_it_is() -> None:
    explanation = explain(failed("new_thing", "it is new"))

    assert (explanation.headline, explanation.cause) == ("Failed: new_thing", "It is new.")


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("no_agent_online", ("no agent server for agent 'session-agent-rag'", "in container box")),
        ("no_capacity", ("no agent server has room", "USHER_AGENT_SLOTS")),
        ("rejected: wrong_client", ("serve another client", "USHER_AGENT_CLIENT_ID='acme'")),
        ("rejected: wrong_container", ("container box", "USHER_AGENT_CONTAINER=box")),
        ("rejected: ledger_unavailable", ("could not reach Redis", "REDIS_URL")),
        ("rejected: declined_by_program", ("on_request", "the program behind agent")),
        ("livekit_unreachable", ("LiveKit does not answer", "client 'acme'")),
        ("livekit_refused", ("key or secret is wrong", "doctor")),
        ("join_timeout", ("did not join in time", "no servers available")),
        ("agent_lost", ("agents keep dying", "out-of-memory")),
        ("dispatcher_unavailable", ("no dispatch worker", "doctor")),
        ("its worker is gone", ("dispatch worker died", "doctor")),
    ],
)
def test_a_failure_names_its_cause_and_what_to_do(reason: str, told: tuple[str, ...]) -> None:
    explanation = explain(failed(reason, container="box"))

    for words in told:
        assert words in everything(explanation)
    assert "dispatch redispatch dsp_1" in explanation.advice


@pytest.mark.parametrize(
    ("reason", "told"),
    [
        ("nobody_came", "nobody came into the room"),
        ("cancelled_by_client", "it was cancelled by hand"),
        ("superseded", "another dispatch serves the room"),
    ],
)
def test_a_cancelled_one_says_who_ended_it(reason: str, told: str) -> None:
    explanation = explain(a_dispatch(state=State.CANCELLED, failure_reason=reason))

    assert explanation.headline == f"Cancelled: {told}"
    assert "redispatch" not in explanation.advice


def test_a_waiting_one_says_what_for_and_for_how_long_still() -> None:
    explanation = explain(
        a_dispatch(state=State.WAITING, failure_reason="no_capacity", remaining_s=7.5)
    )

    assert explanation.headline == "Waiting: no agent server has room; 7.5 s left"


def test_a_fresh_queued_one_is_no_alarm_and_an_old_one_is() -> None:
    fresh = a_dispatch(state=State.QUEUED, updated_at_ms=START_MS, read_at_ms=START_MS + 100)
    old = a_dispatch(state=State.QUEUED, updated_at_ms=START_MS, read_at_ms=START_MS + 4000)

    assert "any moment" in explain(fresh).cause
    assert "workers are away" in explain(old).cause
    assert "doctor" in explain(old).advice


def test_the_time_outs_that_an_explanation_names_are_those_of_the_settings() -> None:
    dispatched = a_dispatch(state=State.DISPATCHED)
    accepted = a_dispatch(state=State.ACCEPTED)

    assert "within 2 s (0.8 s where the agent servers have" in explain(dispatched).cause
    assert "within 4.5 s (0.8 s" in explain(dispatched, offer_timeout_s=4.5).cause
    assert "within 0.5 s has been dropped" in explain(dispatched, offer_timeout_s=0.5).cause
    assert "After 5 s it is given up" in explain(accepted).cause
    assert "After a minute it is given up" in explain(accepted, verify_timeout_s=60.0).cause


def test_how_long_a_record_is_kept_is_what_the_settings_say() -> None:
    kept_for_hours = replace(TIMINGS, retention_s=7200)

    assert "kept for a day after" in explain_unknown("dsp_x", TIMINGS).cause
    assert "kept for 2 hours after" in explain_unknown("dsp_x", kept_for_hours).cause


def test_a_slow_start_is_one_that_the_sweeper_would_have_woken() -> None:
    queued = a_dispatch(state=State.QUEUED, updated_at_ms=START_MS, read_at_ms=START_MS + 4000)
    slow = joined((0, "queued"), (4000, "dispatching"), (4390, "joined"))

    assert "any moment" in explain(queued, wake_grace_s=5.0).cause
    assert "stood in the queue for 4.0 s" in everything(explain(slow))
    assert "stood in the queue" not in everything(explain(slow, wake_grace_s=5.0))


def test_a_smooth_way_has_no_trouble() -> None:
    explanation = explain(joined(*SMOOTH))

    assert explanation.headline == "Joined: the agent is in the room, 390 ms after it was asked for"
    assert explanation.cause == "Nothing went wrong."
    assert explanation.evidence == ()


def test_an_answer_noted_after_the_accept_is_no_trouble() -> None:
    late = [*SMOOTH[:2], SMOOTH[4], (201, "dispatched"), *SMOOTH[5:]]

    assert incidents(joined(*late), TIMINGS) == ()
    names = [stage.name for stage in stages(joined(*late))]
    assert names == ["queue_wait", "dispatch", "join", "session"]


UNHEARD_OF = "agent server server-1 accepted job AJ_1, and then nothing was heard of it"
WORKER_GONE = (
    (0, "queued"),
    (5, "dispatching"),
    (12_100, "requeued", 2, {"reason": "its worker is gone"}),
    (12_110, "dispatching", 2),
    (12_120, "dispatched", 2),
    (12_300, "accepted", 2),
    (12_500, "joined", 2),
)


@pytest.mark.parametrize(
    ("dispatch", "told"),
    [
        # Numbers: the faults of docs/faults.md.
        pytest.param(
            joined((0, "queued"), *((ms + 2400, *rest) for ms, *rest in SMOOTH[1:])),
            "stood in the queue for 2.4 s",
            id="2: the wake-up was lost",
        ),
        pytest.param(
            joined(
                *WORKER_GONE,
                generation=2,
                attempts=(Attempt(generation=1, outcome="abandoned", reason="its worker is gone"),),
            ),
            "Attempt 1: the dispatch worker that had it in hand was killed, frozen or cut off",
            id="3: the worker was killed before it asked",
        ),
        pytest.param(
            joined(*SMOOTH[:2], *SMOOTH[3:], attempts=(Attempt(generation=1, outcome="joined"),)),
            "its answer was never written down",
            id="4: the worker was killed after it had asked",
        ),
        pytest.param(
            joined(*SMOOTH[:-1], (3400, "joined")),
            "connected for 3.0 s before that was verified",
            id="5: the verification was lost",
        ),
        pytest.param(
            joined(
                *SMOOTH,
                (60_000, "agent_lost", 2, {"agent_identity": "agent-AJ_1"}),
                attempts=(Attempt(generation=1, outcome="lost"),),
            ),
            "Agent agent-AJ_1 was given up: it fell silent",
            id="6, 13: the agent was frozen or killed",
        ),
        pytest.param(
            joined(*SMOOTH, (61_000, "surplus_agent", 1, {"agent_identity": "agent-AJ_9"})),
            "A second agent agent-AJ_9",
            id="6: a second agent",
        ),
        pytest.param(
            joined((9000, "restored", 1, {"by": "web"}), (9010, "adopted"), (9100, "joined")),
            "Redis did not have the record",
            id="8, 9: Redis was away or lost data",
        ),
        pytest.param(
            joined(
                (0, "queued"),
                (5, "dispatching"),
                (9000, "livekit_unreachable", 2, {"reason": "livekit_unreachable"}),
                (12_000, "dispatching", 2),
                (12_010, "dispatched", 2),
                (12_200, "accepted", 2),
                (12_400, "joined", 2),
            ),
            "It waited 3.0 s: livekit_unreachable",
            id="10: LiveKit was killed",
        ),
        pytest.param(
            joined(
                *SMOOTH,
                attempts=(
                    Attempt(
                        generation=1,
                        tries=2,
                        outcome="joined",
                        errors=("try 1: LiveKit did not answer: TimeoutError",),
                    ),
                ),
            ),
            "Attempt 1, try 1: LiveKit did not answer: TimeoutError.",
            id="11: the reply was lost or late",
        ),
        pytest.param(
            joined(
                *SMOOTH[:5],
                (300, "agent_crashed", 2, {"reason": "the agent program raised KeyError at a:7"}),
                attempts=(Attempt(generation=1, outcome="crashed", reason="agent_crashed"),),
            ),
            "it ended before its agent was in the room: the agent program raised KeyError at a:7",
            id="16: the agent program raised before it connected",
        ),
        pytest.param(
            joined(
                *SMOOTH[:5],
                (5200, "requeued", 2, {"reason": "join_timeout", "message": UNHEARD_OF}),
                attempts=(Attempt(generation=1, outcome="given_up", reason="join_timeout"),),
            ),
            f"Attempt 1: it was given up: {UNHEARD_OF}.",
            id="13: the job was killed before it connected",
        ),
    ],
)
def test_a_joined_one_says_what_went_wrong_on_the_way(dispatch: Dispatch, told: str) -> None:
    explanation = explain(dispatch)

    assert told in explanation.cause
    assert any(told in line for line in explanation.evidence)


def test_rejects_are_told_by_agent_server_with_their_number() -> None:
    by = {"agent_server_id": "server-1", "container": "box-1", "reason": "wrong_client"}
    dispatch = failed(
        "rejected: wrong_client",
        timeline=events((0, "queued"), (200, "rejected", 1, by), (2400, "rejected", 2, by)),
    )

    assert (
        "Agent server server-1 (container box-1) refused the job 2 times: wrong_client."
        in explain(dispatch).evidence
    )


def test_what_is_not_there_is_explained_too() -> None:
    assert "'dsp_x'" in explain_unknown("dsp_x", TIMINGS).headline
    parked = explain_parked("dsp_x", "KeyError: 'state'")
    assert "damaged" in parked.cause
    assert "KeyError" in parked.cause


def test_names_with_braces_are_taken_as_they_are() -> None:
    assert "'{agent}'" in explain(failed("no_agent_online", agent_name="{agent}")).headline


def test_the_stages_follow_each_other_without_a_gap() -> None:
    found = stages(joined(*SMOOTH, read_at_ms=START_MS + 1390))

    assert [(stage.name, stage.took_ms, stage.open) for stage in found] == [
        ("queue_wait", 5, False),
        ("dispatch", 7, False),
        ("offer", 188, False),
        ("accept", 0, False),
        ("join", 190, False),
        ("session", 1000, True),
    ]


def test_an_agent_that_crashes_before_it_is_there_ends_its_join_at_once() -> None:
    gone = (*SMOOTH[:5], (300, "agent_crashed", 2), (310, "dispatching", 2))
    found = stages(joined(*gone))

    assert [stage.name for stage in found][-3:] == ["join", "queue_wait", "dispatch"]
    assert (found[-3].took_ms, found[-2].took_ms) == (100, 10)


def test_an_agent_that_is_leaving_has_a_stage_of_its_own() -> None:
    gone = (*SMOOTH, (60_000, "agent_leaving"), (63_000, "agent_left"))
    found = stages(joined(*gone))

    assert [(stage.name, stage.open) for stage in found][-2:] == [
        ("session", False),
        ("leaving", False),
    ]
    assert found[-1].took_ms == 3000


def test_the_stages_of_an_ended_one_are_closed() -> None:
    found = stages(failed("no_agent_online", timeline=events((0, "queued"), (18_000, "failed"))))

    assert [(stage.name, stage.took_ms, stage.open) for stage in found] == [
        ("queue_wait", 18_000, False)
    ]
