"""The table of transitions keeps the promises that everything else leans on."""

from __future__ import annotations

import pytest

from dispatcher.domain import state_machine
from dispatcher.domain.models import IN_FLIGHT, PENDING, TERMINAL, Attempt, State, Transition
from dispatcher.domain.state_machine import (
    ACCEPTED,
    ADOPTED,
    AGENT_CONNECTED,
    AGENT_CRASHED,
    AGENT_LEAVING,
    AGENT_LOST,
    CAME_BACK,
    FAILED,
    JOINED,
    NEXT_GENERATION,
    NOBODY_CAME,
    REDISPATCH,
    ROOM_OVER,
    UNREACHED,
    WAIT,
)
from tests.support.values import a_dispatch, a_server

TABLE = {
    name: value for name, value in vars(state_machine).items() if isinstance(value, Transition)
}
ORDER = [
    State.QUEUED,
    State.DISPATCHING,
    State.DISPATCHED,
    State.OFFERED,
    State.ACCEPTED,
    State.JOINED,
    State.LEAVING,
    State.ENDED,
]
everything = pytest.mark.parametrize("transition", TABLE.values(), ids=TABLE)
except_redispatch = pytest.mark.parametrize(
    "transition", [each for each in TABLE.values() if each is not REDISPATCH], ids=lambda t: t.event
)


def test_every_state_is_pending_or_joined_or_leaving_or_terminal() -> None:
    parts = [PENDING, TERMINAL, {State.JOINED, State.LEAVING}]

    assert sorted(state for part in parts for state in part) == sorted(State)


def test_what_is_in_flight_is_pending() -> None:
    assert IN_FLIGHT < PENDING


@except_redispatch
def test_nothing_but_a_redispatch_by_hand_leaves_a_terminal_state(transition: Transition) -> None:
    assert not transition.moves & TERMINAL
    assert not transition.notes & TERMINAL


@everything
def test_a_transition_goes_forward_unless_it_starts_a_new_generation(
    transition: Transition,
) -> None:
    beside = {State.WAITING, State.FAILED, State.CANCELLED, State.DELEGATED}
    if transition.new_generation or transition.to in beside:
        return
    for state in transition.moves - beside:
        assert ORDER.index(state) < ORDER.index(transition.to)
    assert not transition.moves & {State.CANCELLED, State.FAILED}


@everything
def test_no_transition_moves_a_record_to_where_it_is(transition: Transition) -> None:
    assert transition.to not in transition.moves


@everything
def test_a_state_is_moved_from_or_noted_in_never_both(transition: Transition) -> None:
    assert not transition.moves & transition.notes


def test_every_event_has_a_name_of_its_own() -> None:
    events = [transition.event for transition in TABLE.values()]

    assert len(set(events)) == len(events)


@pytest.mark.parametrize("state", sorted(PENDING))
def test_every_pending_state_can_fail(state: State) -> None:
    assert state in FAILED.moves


def test_a_joined_dispatch_can_fail_when_its_agent_dies_again_and_again() -> None:
    assert State.JOINED in FAILED.moves


@pytest.mark.parametrize("state", sorted(set(State) - PENDING - {State.JOINED}))
def test_what_is_neither_pending_nor_joined_cannot_fail(state: State) -> None:
    assert state not in FAILED.moves | FAILED.notes


@pytest.mark.parametrize("state", sorted(IN_FLIGHT))
def test_every_attempt_in_flight_can_be_given_up_and_can_have_joined(state: State) -> None:
    assert state in WAIT.moves
    assert state in NEXT_GENERATION.moves
    assert state in JOINED.moves


def test_whoever_gives_an_attempt_up_raises_the_generation() -> None:
    raising = {t.event for t in TABLE.values() if t.new_generation}

    assert raising == {
        WAIT.event,
        UNREACHED.event,
        NEXT_GENERATION.event,
        AGENT_LOST.event,
        AGENT_CRASHED.event,
        CAME_BACK.event,
        REDISPATCH.event,
    }


def test_a_job_that_livekit_has_offered_is_not_given_up_for_its_silence() -> None:
    assert UNREACHED.moves == {State.DISPATCHING}


def test_only_a_joined_dispatch_can_be_leaving() -> None:
    assert AGENT_LEAVING.moves == {State.JOINED}
    assert AGENT_LEAVING.to is State.LEAVING


def test_a_person_can_come_back_to_an_agent_that_is_there_and_to_one_that_is_leaving() -> None:
    assert CAME_BACK.moves == {State.ACCEPTED, State.JOINED, State.LEAVING}


def test_only_what_is_on_its_way_can_crash_before_it_is_there() -> None:
    assert AGENT_CRASHED.moves == IN_FLIGHT


def test_only_a_joined_dispatch_can_lose_its_agent() -> None:
    assert AGENT_LOST.moves == {State.JOINED}


def test_a_dispatch_is_over_with_its_room_once_livekit_may_have_brought_its_agent() -> None:
    assert ROOM_OVER.moves == {State.JOINED, State.LEAVING, State.DELEGATED}
    assert (AGENT_LOST.to, ROOM_OVER.to) == (State.QUEUED, State.ENDED)


def test_only_an_agent_that_is_there_can_say_that_nobody_came() -> None:
    assert NOBODY_CAME.moves == {State.ACCEPTED, State.JOINED}
    assert NOBODY_CAME.to is State.CANCELLED


@everything
def test_going_back_always_raises_the_generation(transition: Transition) -> None:
    if transition.moves and transition.to in (State.QUEUED, State.WAITING):
        assert transition.new_generation


@pytest.mark.parametrize("state", sorted(PENDING - {State.ACCEPTED}))
def test_an_agent_can_adopt_whatever_no_job_has_claimed(state: State) -> None:
    assert state in ADOPTED.moves


@pytest.mark.parametrize("state", sorted({State.ACCEPTED, State.JOINED} | TERMINAL))
def test_an_agent_cannot_adopt_what_another_serves_or_what_has_ended(state: State) -> None:
    assert state not in ADOPTED.moves | ADOPTED.notes


@pytest.mark.parametrize("state", [State.ACCEPTED, State.JOINED])
def test_an_accepted_dispatch_cannot_be_accepted_again(state: State) -> None:
    assert state not in ACCEPTED.moves | ACCEPTED.notes


def test_an_agents_word_alone_never_makes_a_dispatch_joined() -> None:
    assert AGENT_CONNECTED.moves == frozenset()


@pytest.mark.parametrize("state", sorted(PENDING))
def test_what_goes_on_by_itself_is_not_redispatched_by_hand(state: State) -> None:
    assert state not in REDISPATCH.moves | REDISPATCH.notes


@pytest.mark.parametrize("state", State)
def test_a_record_is_terminal_where_nothing_more_happens_by_itself(state: State) -> None:
    assert a_dispatch(state=state).terminal is (state in TERMINAL)


def test_the_attempt_is_the_present_generations_and_empty_when_it_has_none_yet() -> None:
    first, second = Attempt(generation=1, tries=3), Attempt(generation=2, tries=1)

    assert a_dispatch(generation=2, attempts=(first, second)).attempt is second
    assert a_dispatch(generation=3, attempts=(first, second)).attempt == Attempt(generation=3)


def test_the_remaining_time_is_counted_from_the_moment_of_reading() -> None:
    assert a_dispatch(remaining_s=1.5).remaining_s == 1.5
    assert a_dispatch(remaining_s=-2).remaining_s == -2


@pytest.mark.parametrize(
    ("report", "free"),
    [
        ({"slots": 4, "used_slots": 1}, 3),
        ({"slots": 4, "used_slots": 4}, 0),
        ({"slots": 4, "used_slots": 6}, 0),
        ({"slots": 4, "used_slots": 0, "draining": True}, 0),
        ({"slots": 4, "used_slots": 0, "registered": False}, 0),
    ],
)
def test_free_slots_are_never_negative_and_none_where_livekit_cannot_offer_jobs(
    report: dict[str, int], free: int
) -> None:
    assert a_server(**report).free_slots == free


def test_what_a_client_sends_is_not_in_a_records_repr() -> None:
    assert "confidential" not in repr(a_dispatch(agent_metadata="confidential"))
