"""What does a verification do next, of what it has seen?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dispatcher.domain.models import DIRECT, IN_FLIGHT, Attempt, Dispatch, State
from dispatcher.domain.rooms import RoomView
from dispatcher.domain.timing import GRACE_S, VERIFY_GRACE_S
from dispatcher.domain.verification_steps import (
    CONNECTED_POLL_S,
    PLACED_TIMEOUT_S,
    STARTING_LOOK_S,
    Extend,
    GiveUp,
    Join,
    Leave,
    Look,
    Step,
    Wait,
    Watch,
    begin,
    next_step,
)
from tests.support.values import TIMINGS, a_dispatch, a_server, an_agent

NOW_S = 100.0
READ_AT_MS = 1_005_000
EMPTY = RoomView(agents=(), people=1)
OURS = an_agent()
THERE = RoomView(agents=(OURS,), people=1)
JOINING = RoomView(agents=(), people=1, joining=(OURS,))
NO_SERVER_WITH_OWN_LOAD = (a_server(),)
ALL_WITH_OWN_LOAD = (a_server(takes=2), a_server("server-2", takes=0))


def record(
    state: State = State.DISPATCHED, *, unchanged_s: float = 0.3, **changes: Any
) -> Dispatch:
    """A record in flight as read, 15 s before its deadline, `unchanged_s` after it has changed."""
    updated_at_ms = READ_AT_MS - int(unchanged_s * 1000)
    return a_dispatch(state=state, updated_at_ms=updated_at_ms, **changes)


def alive(unchanged_s: float, **changes: Any) -> Dispatch:
    """A record whose job says that it lives and that has not connected yet."""
    return record(
        State.ACCEPTED, unchanged_s=unchanged_s, alive_till_ms=READ_AT_MS + 1000, **changes
    )


def watch(**changes: Any) -> Watch:
    """A watch that has 4 s left, and has looked at the room just now."""
    values: dict[str, Any] = {
        "fenced": True,
        "now_s": NOW_S,
        "until_s": NOW_S + 4.0,
        "looked_at_s": NOW_S,
    }
    return Watch(**(values | changes))


def over(**changes: Any) -> Watch:
    """A watch whose time is up, and that has just seen an empty room."""
    return watch(**({"until_s": NOW_S, "room": EMPTY} | changes))


def step(dispatch: Dispatch, seen: Watch) -> Step:
    return next_step(dispatch, seen, TIMINGS)


@pytest.mark.parametrize("state", sorted(set(State) - IN_FLIGHT))
def test_a_record_that_has_moved_on_is_left_as_it_is(state: State) -> None:
    assert step(record(state), over()) == Leave()


def test_an_agent_that_has_fallen_silent_is_given_up_without_a_look() -> None:
    silent_at_ms = READ_AT_MS - int(GRACE_S * 1000) - 1

    assert step(record(State.ACCEPTED, alive_till_ms=silent_at_ms), watch()) == GiveUp()


@pytest.mark.parametrize(
    ("dispatch", "seen", "due"),
    [
        (record(), watch(), False),
        (record(), watch(woken=True), True),
        (record(State.ACCEPTED, agent_identity="agent-AJ_1"), watch(), True),
        (record(), watch(looked_at_s=NOW_S - 1.9), False),
        (record(), watch(looked_at_s=NOW_S - 2.0), True),  # 4 polls: it would say that it is there
        (record(), watch(looked_at_s=NOW_S - 0.4, fenced=False), False),
        (record(), watch(looked_at_s=NOW_S - 0.5, fenced=False), True),  # it cannot say anything
        (record(), watch(until_s=NOW_S), True),
    ],
)
def test_the_room_is_looked_at_with_news_or_after_some_polls_or_at_the_end(
    dispatch: Dispatch, seen: Watch, due: bool
) -> None:
    assert (step(dispatch, seen) is Look.ROOM) is due
    assert step(dispatch, replace(seen, room=EMPTY)) is not Look.ROOM


@pytest.mark.parametrize("seen", [watch(room=THERE), over(room=THERE)])
def test_an_agent_that_livekit_lists_has_joined_at_the_last_moment_too(seen: Watch) -> None:
    assert step(record(), seen) == Join(agent=OURS, room=THERE)


def test_one_that_cannot_be_written_down_is_not_tried_again_before_the_record_is_read() -> None:
    seen = watch(room=THERE, overtaken=True)

    assert step(record(), seen) == Wait(pause_s=0.5)
    seen.waited(record(), now_s=NOW_S + 1, woken=True)
    assert (seen.room, seen.overtaken) == (None, False)
    assert step(record(), seen) is Look.ROOM


@pytest.mark.parametrize(
    ("dispatch", "seen", "pause_s"),
    [
        (record(), watch(), 0.5),  # what is looked for is the offer
        (record(State.ACCEPTED), watch(), 2.0),
        (alive(0.3), watch(), 2.0),
        (record(), watch(fenced=False), 0.5),
        (record(), watch(until_s=NOW_S + 0.2), 0.2),
        (record(agent_identity="agent-AJ_1"), watch(room=EMPTY), CONNECTED_POLL_S),
        (record(agent_identity="agent-AJ_1"), watch(room=EMPTY, connected_poll_s=0.4), 0.4),
        (record(agent_identity="agent-AJ_1"), watch(room=EMPTY, connected_poll_s=0.8), 0.5),
    ],
)
def test_it_waits_for_as_long_as_there_is_nothing_to_see(
    dispatch: Dispatch, seen: Watch, pause_s: float
) -> None:
    assert step(dispatch, seen) == Wait(pause_s=pytest.approx(pause_s))


def test_a_pause_ends_before_the_agent_counts_as_silent() -> None:
    silent_in_1_s = READ_AT_MS - int(GRACE_S * 1000) + 1000

    assert step(record(State.ACCEPTED, alive_till_ms=silent_in_1_s), watch()) == Wait(pause_s=1.0)


def test_of_a_connected_agent_the_room_is_looked_at_ever_more_rarely() -> None:
    connected = record(State.ACCEPTED, agent_identity="agent-AJ_1")
    seen = watch(room=EMPTY)
    seen.waited(connected, now_s=NOW_S + 0.1, woken=False)
    assert seen.connected_poll_s == CONNECTED_POLL_S * 2

    seen.waited(record(), now_s=NOW_S + 1, woken=True)
    assert seen.connected_poll_s == CONNECTED_POLL_S * 2


@pytest.mark.parametrize(
    ("dispatch", "follows"),
    [
        (record(), GiveUp()),
        (record(State.OFFERED), GiveUp()),
        (record(State.DISPATCHING), Leave()),  # its worker is still at it
        (record(State.DISPATCHING, remaining_s=2.0), GiveUp()),
        (alive(5.5), Leave(due_in_s=STARTING_LOOK_S)),
        (alive(5.5, remaining_s=1.9), GiveUp()),
        (record(State.ACCEPTED, unchanged_s=3.0), Extend(until_s=NOW_S + 2.0)),  # accepted late
        (record(State.ACCEPTED, unchanged_s=5.0), GiveUp()),
    ],
)
def test_at_its_end_it_gives_up_where_nobody_can_bring_the_agent_any_more(
    dispatch: Dispatch, follows: Step
) -> None:
    assert step(dispatch, over()) == follows


@pytest.mark.parametrize(("unchanged_s", "left_s"), [(3.0, 7.0), (5.5, 4.5)])
def test_an_agent_whose_connection_is_being_made_has_twice_the_time(
    unchanged_s: float, left_s: float
) -> None:
    dispatch = record(State.ACCEPTED, unchanged_s=unchanged_s)

    longer = step(dispatch, over(room=JOINING))

    assert longer == Extend(until_s=NOW_S + left_s, due_in_s=left_s + VERIFY_GRACE_S)
    assert step(record(State.ACCEPTED, unchanged_s=10.0), over(room=JOINING)) == GiveUp()


def test_more_time_ends_before_the_deadline_does_and_is_waited_for() -> None:
    dispatch = record(State.ACCEPTED, unchanged_s=1.0)
    short = replace(dispatch, deadline_at_ms=READ_AT_MS + 3500)

    assert step(short, over()) == Extend(until_s=NOW_S + 1.5)
    assert step(short, over(until_s=NOW_S + 1.5)) == Wait(pause_s=1.5)


@pytest.mark.parametrize("state", [State.DISPATCHED, State.OFFERED])
@pytest.mark.parametrize(
    ("unchanged_s", "seen", "follows"),
    [
        (0.7, watch(), Wait(pause_s=0.5)),
        (0.8, watch(fenced=False, room=EMPTY), Wait(pause_s=0.5)),  # it says nothing of offers
        (0.8, watch(), Look.AGENT_SERVERS),
        (0.8, watch(agent_servers=NO_SERVER_WITH_OWN_LOAD), Wait(pause_s=0.5)),
        (0.8, watch(agent_servers=()), Wait(pause_s=0.5)),
        (0.8, watch(agent_servers=ALL_WITH_OWN_LOAD), Look.ON_THEIR_WAY),
        (0.8, watch(agent_servers=ALL_WITH_OWN_LOAD, on_their_way=0), GiveUp()),
        (0.8, watch(agent_servers=ALL_WITH_OWN_LOAD, on_their_way=1), Wait(pause_s=0.5)),
        (1.0, watch(agent_servers=ALL_WITH_OWN_LOAD, on_their_way=1), GiveUp()),
        (1.9, watch(agent_servers=NO_SERVER_WITH_OWN_LOAD), Wait(pause_s=0.5)),
        (2.0, watch(agent_servers=NO_SERVER_WITH_OWN_LOAD), Look.ON_THEIR_WAY),
        (2.0, watch(agent_servers=(), on_their_way=0), GiveUp()),
        (2.9, watch(agent_servers=NO_SERVER_WITH_OWN_LOAD, on_their_way=10), Wait(pause_s=0.5)),
        (3.1, watch(agent_servers=NO_SERVER_WITH_OWN_LOAD, on_their_way=10), GiveUp()),
    ],
)
def test_a_job_that_livekit_has_dropped_is_given_up_at_once(
    state: State, unchanged_s: float, seen: Watch, follows: Step
) -> None:
    assert step(record(state, unchanged_s=unchanged_s), seen) == follows


@pytest.mark.parametrize("state", [State.DISPATCHING, State.ACCEPTED])
def test_what_was_not_asked_for_or_was_accepted_is_not_dropped(state: State) -> None:
    assert isinstance(step(record(state, unchanged_s=3.0), watch()), Wait)


@pytest.mark.parametrize(
    ("dispatch", "time_s"),
    [
        (record(), 5.0),
        (record(remaining_s=4.5), 2.5),
        (record(remaining_s=1.0), 0.0),
        (alive(4.0), 5.0),
        (alive(5.1), 0.0),  # it is only looked at
    ],
)
def test_an_agent_has_the_time_of_the_settings_but_not_beyond_the_deadline(
    dispatch: Dispatch, time_s: float
) -> None:
    seen = begin(dispatch, TIMINGS, fenced=True, now_s=NOW_S)

    assert (seen.until_s, seen.looked_at_s, seen.woken) == (NOW_S + time_s, NOW_S, False)
    assert (step(dispatch, seen) is Look.ROOM) is (time_s == 0)


def placed(state: State = State.DISPATCHED, *, unchanged_s: float) -> Dispatch:
    """A record whose job Usher has given to an agent server."""
    attempt = Attempt(generation=1, placement=DIRECT, agent_server_id="server-1")
    return record(state, unchanged_s=unchanged_s, attempts=(attempt,))


def test_an_agent_server_has_so_long_to_claim_the_job_that_it_was_given() -> None:
    almost = placed(unchanged_s=PLACED_TIMEOUT_S - 0.1)

    waiting = step(almost, watch())
    assert isinstance(waiting, Wait)
    assert waiting.pause_s == pytest.approx(0.1)
    assert step(placed(unchanged_s=PLACED_TIMEOUT_S), watch()) == GiveUp()


def test_an_agent_server_that_refuses_the_job_that_it_was_given_is_passed_by_at_once() -> None:
    assert step(placed(State.OFFERED, unchanged_s=0.0), watch(woken=True)) == GiveUp()


def test_a_claimed_job_has_the_time_of_any_other() -> None:
    assert step(placed(State.ACCEPTED, unchanged_s=1.0), watch()) != GiveUp()


@pytest.mark.parametrize("state", [State.DISPATCHED, State.OFFERED])
def test_livekit_has_longer_to_offer_a_job(state: State) -> None:
    assert isinstance(step(record(state, unchanged_s=PLACED_TIMEOUT_S), watch()), Wait)
