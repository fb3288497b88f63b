"""What follows from what has been seen of a dispatch?"""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from dispatcher.domain.agent_losses import crashes_in_a_row
from dispatcher.domain.agent_servers import can_take, eligible
from dispatcher.domain.failure_reasons import why_no_agent, why_too_late
from dispatcher.domain.models import END_MARGIN_S, AgentServerReport, Attempt, Dispatch, State
from dispatcher.domain.rooms import AgentParticipant, foreign_agents, our_agent
from dispatcher.domain.state_machine import FAILED, NEXT_GENERATION, WAIT
from dispatcher.domain.timing import (
    GRACE_S,
    is_silent,
    is_starting,
    look_again_in_s,
    silent_in_s,
    time_is_up,
    time_to_join,
)
from dispatcher.domain.verification_steps import after_no_join
from tests.support.values import a_dispatch, a_server, an_agent

SOON_S = 0.05
FREE = a_server(slots=4, used_slots=1)
BUSY = a_server(slots=4, used_slots=4)
DRAINING = a_server(draining=True)
UNREGISTERED = a_server(registered=False)


def test_an_accepted_agent_is_silent_a_grace_after_it_was_to_renew() -> None:
    dispatch = a_dispatch(state=State.ACCEPTED)
    alive = replace(dispatch, alive_till_ms=dispatch.read_at_ms + 1_000)
    late = replace(dispatch, alive_till_ms=dispatch.read_at_ms - int(GRACE_S * 1000))

    assert silent_in_s(alive) == 1 + GRACE_S
    assert (silent_in_s(late), is_silent(late)) == (0, False)
    assert is_silent(replace(late, alive_till_ms=late.alive_till_ms - 1))


@pytest.mark.parametrize(
    ("livekit_says_ms", "took_ms"),
    [
        (340, 340),
        (1500, 1500),  # it has joined after the record was read
        (-1, 900),  # LiveKit's clock is behind
        (30_000, 900),  # it is ahead, or Redis's has gone back
    ],
)
def test_the_time_to_join_is_livekits_where_that_can_be(livekit_says_ms: int, took_ms: int) -> None:
    dispatch = a_dispatch(requested_at_ms=1_000_000, read_at_ms=1_000_900)
    assert time_to_join(dispatch, 1_000_000 + livekit_says_ms) == took_ms


def test_who_has_never_said_that_it_is_alive_is_not_silent() -> None:
    accepted = a_dispatch(state=State.ACCEPTED)
    dispatched = a_dispatch(state=State.DISPATCHED, alive_till_ms=1)

    assert (silent_in_s(accepted), is_silent(accepted)) == (inf, False)
    # Nobody has accepted it: what to wait for is the offer, and it is looked at as often as ever.
    assert (silent_in_s(dispatched), is_silent(dispatched)) == (0, False)


def test_the_agent_of_this_generation_is_ours() -> None:
    agent = an_agent(generation=2)

    agents = [an_agent(generation=1), agent]
    assert our_agent(a_dispatch(generation=2), agents, fenced=True) is agent
    assert our_agent(a_dispatch(generation=2), agents, fenced=False) is agent


@pytest.mark.parametrize(
    "agent",
    [
        an_agent(generation=1),
        an_agent(generation=3),
        an_agent(generation=None),
        an_agent(dispatch_id="dsp_other", generation=2),
        an_agent(dispatch_id="", generation=None, agent_name="another-agent"),
        an_agent(dispatch_id="", generation=None, agent_name=""),
    ],
    ids=["older", "newer", "no generation", "another dispatch", "another name", "no name"],
)
def test_another_agent_is_not_ours(agent: object) -> None:
    assert our_agent(a_dispatch(generation=2), [agent], fenced=True) is None
    assert our_agent(a_dispatch(generation=2), [agent], fenced=False) is None


def test_an_agent_without_a_dispatch_id_counts_by_its_name_only_where_it_is_unfenced() -> None:
    agent = an_agent(identity="agent-AJ_9", dispatch_id="", generation=None)

    assert our_agent(a_dispatch(), [agent], fenced=False) is agent
    assert our_agent(a_dispatch(), [agent], fenced=True) is None
    assert foreign_agents(a_dispatch(), [agent, an_agent()]) == [agent]


@pytest.mark.parametrize(
    "agent",
    [
        an_agent(),
        an_agent(dispatch_id="dsp_other"),
        an_agent(dispatch_id="", generation=None, agent_name="another-agent"),
    ],
    ids=["ours", "of another dispatch", "of another name"],
)
def test_an_agent_of_another_name_or_with_a_dispatch_id_is_no_foreign_one(
    agent: AgentParticipant,
) -> None:
    assert foreign_agents(a_dispatch(), [agent]) == []


def test_an_empty_room_has_no_agent_of_ours() -> None:
    assert our_agent(a_dispatch(), [], fenced=False) is None


def test_a_job_is_starting_while_it_says_that_it_lives_and_has_not_connected() -> None:
    starting = a_dispatch(state=State.ACCEPTED, alive_till_ms=a_dispatch().read_at_ms + 1000)

    assert is_starting(starting)
    assert not is_starting(replace(starting, alive_till_ms=0))
    assert not is_starting(replace(starting, agent_identity="agent-AJ_1"))
    assert not is_starting(replace(starting, state=State.JOINED))
    dead_ms = starting.read_at_ms - int(GRACE_S * 1000) - 1
    assert not is_starting(replace(starting, alive_till_ms=dead_ms))


def test_a_slow_start_and_a_death_have_words_of_their_own() -> None:
    starting = a_dispatch(state=State.ACCEPTED, alive_till_ms=a_dispatch().read_at_ms + 1000)
    dead = replace(starting, alive_till_ms=0)

    assert "still starting" in why_no_agent(starting, [FREE]).message
    assert "deadline_s" in why_no_agent(starting, [FREE]).message
    assert "died" in why_no_agent(dead, [FREE]).message
    assert "starting" not in why_no_agent(dead, [FREE]).message


def test_at_the_deadline_a_slow_start_after_a_crash_is_told_as_what_it_is() -> None:
    crashed = Attempt(generation=1, outcome="crashed", reason="agent_crashed")
    slow = a_dispatch(
        state=State.ACCEPTED,
        generation=2,
        attempts=(crashed,),
        failure_reason="agent_crashed",
        failure_message="it raised",
        remaining_s=1.0,
        updated_at_ms=1_005_000,
        alive_till_ms=1_020_000,
    )
    assert "still starting" in why_too_late(slow, [FREE]).message

    fresh = replace(slow, updated_at_ms=slow.read_at_ms - 500)
    assert why_too_late(fresh, [FREE]).code == "agent_crashed"


def test_agent_servers_that_cannot_start_a_process_are_named_as_the_reason() -> None:
    broken = a_server(agent_server_id="box-1-7", cannot_start=True)

    assert not eligible(a_dispatch(), [broken])
    assert (broken.online, broken.free_slots) == (False, 0)
    assert "box-1-7" in why_no_agent(a_dispatch(), [broken]).message
    assert "cannot start" in why_no_agent(a_dispatch(), [broken]).message
    another = replace(broken, agent_name="another-agent")
    assert "cannot start" not in why_no_agent(a_dispatch(), [another]).message


@pytest.mark.parametrize(
    ("outcomes", "first_generation", "count"),
    [
        ([], 1, 0),
        (["crashed"], 1, 1),
        (["crashed", "crashed"], 1, 2),
        (["crashed", "given_up", "crashed"], 1, 1),
        (["crashed", "given_up"], 1, 0),
        (["crashed", "crashed", "crashed"], 3, 1),  # sent again by hand since
    ],
)
def test_crashes_are_counted_in_a_row_and_since_it_was_last_asked_for(
    outcomes: list[str], first_generation: int, count: int
) -> None:
    attempts = tuple(
        Attempt(generation=number, outcome=outcome) for number, outcome in enumerate(outcomes, 1)
    )
    dispatch = a_dispatch(
        generation=len(outcomes) + 1, attempts=attempts, first_generation=first_generation
    )

    assert crashes_in_a_row(dispatch) == count


@pytest.mark.parametrize(
    ("container", "server", "fits"),
    [
        ("", a_server(), True),
        ("box-1", a_server(), True),
        ("box-2", a_server(), False),
        ("", a_server(client_id="acme"), True),
        ("", a_server(client_id="globex"), False),
        ("", a_server(agent_name="another-agent"), False),
        ("", BUSY, True),
        ("", DRAINING, False),
        ("", UNREGISTERED, False),
    ],
)
def test_an_agent_server_is_eligible_by_agent_container_and_client(
    container: str, server: AgentServerReport, fits: bool
) -> None:
    assert eligible(a_dispatch(container=container), [server]) == ([server] if fits else [])


@pytest.mark.parametrize(
    ("servers", "can"),
    [
        ([], False),
        ([FREE], True),
        ([BUSY], False),
        ([BUSY, FREE], True),
        ([DRAINING], False),
        ([UNREGISTERED], False),
        ([a_server(slots=1, used_slots=0, draining=True)], False),
        ([a_server(slots=1, used_slots=3)], False),
        ([a_server(client_id="globex"), a_server(agent_name="another-agent")], False),
    ],
)
def test_a_dispatch_can_be_taken_where_an_eligible_agent_server_has_a_free_slot(
    servers: list[AgentServerReport], can: bool
) -> None:
    assert can_take(a_dispatch(), servers) is can


@pytest.mark.parametrize(
    ("state", "reason", "servers", "code"),
    [
        (State.DISPATCHED, "", [], "no_agent_online"),
        (State.DISPATCHED, "", [a_server(agent_name="another-agent")], "no_agent_online"),
        (State.DISPATCHED, "", [BUSY], "no_capacity"),
        (State.DISPATCHED, "", [a_server(takes=0)], "no_capacity"),
        (State.DISPATCHED, "", [a_server(starts=0)], "no_capacity"),
        (State.DISPATCHED, "", [DRAINING], "no_agent_online"),
        (State.DISPATCHED, "", [UNREGISTERED], "no_agent_online"),
        (State.DISPATCHED, "", [BUSY, DRAINING], "no_capacity"),
        (State.OFFERED, "full", [FREE], "no_capacity"),
        (State.OFFERED, "full", [], "no_agent_online"),
        (State.OFFERED, "wrong_container", [FREE], "rejected: wrong_container"),
        (State.OFFERED, "wrong_client", [], "rejected: wrong_client"),
        (State.DISPATCHED, "", [FREE], "join_timeout"),
        (State.DISPATCHED, "", [BUSY, FREE], "join_timeout"),
        (State.ACCEPTED, "", [FREE], "join_timeout"),
        (State.ACCEPTED, "", [], "join_timeout"),
    ],
)
def test_the_reason_for_no_agent_is_the_true_one(
    state: State, reason: str, servers: list[AgentServerReport], code: str
) -> None:
    why = why_no_agent(a_dispatch(state=state, reason=reason), servers)

    assert why.code == code
    assert why.message


def test_an_accepted_job_without_an_agent_names_the_agent_server_and_the_job() -> None:
    accepted = a_dispatch(state=State.ACCEPTED, agent_server_id="host-7-ab", job_id="AJ_9")

    message = why_no_agent(accepted, [FREE]).message

    assert "host-7-ab" in message
    assert "AJ_9" in message


def test_a_job_that_one_refused_and_another_accepted_was_not_rejected() -> None:
    accepted = a_dispatch(state=State.ACCEPTED, reason="wrong_container", job_id="AJ_9")

    assert why_no_agent(accepted, [FREE]).code == "join_timeout"


def test_only_the_present_attempts_reject_counts() -> None:
    again = a_dispatch(generation=2, attempts=(Attempt(generation=1, reason="wrong_container"),))

    assert why_no_agent(again, [FREE]).code == "join_timeout"


def test_no_agent_online_names_the_container_that_is_wanted() -> None:
    assert "'box-9'" in why_no_agent(a_dispatch(container="box-9"), [FREE]).message


@pytest.mark.parametrize("servers", [[], [FREE], [BUSY]])
@pytest.mark.parametrize("remaining_s", [END_MARGIN_S, 0.2, 0.0, -3.0])
def test_near_the_deadline_the_dispatch_fails_whoever_could_take_it(
    remaining_s: float, servers: list[AgentServerReport]
) -> None:
    dispatch = a_dispatch(remaining_s=remaining_s)

    assert time_is_up(dispatch)
    assert after_no_join(dispatch, servers) == (FAILED, why_no_agent(dispatch, servers))


def test_with_time_and_a_free_slot_left_the_next_attempt_starts_at_once() -> None:
    dispatch = a_dispatch(remaining_s=END_MARGIN_S + 0.1)

    assert not time_is_up(dispatch)
    assert after_no_join(dispatch, [FREE]) == (NEXT_GENERATION, why_no_agent(dispatch, [FREE]))


@pytest.mark.parametrize("servers", [[], [BUSY], [DRAINING], [UNREGISTERED]])
def test_with_time_and_no_free_slot_left_the_dispatch_waits(
    servers: list[AgentServerReport],
) -> None:
    dispatch = a_dispatch()

    assert after_no_join(dispatch, servers) == (WAIT, why_no_agent(dispatch, servers))


@pytest.mark.parametrize(
    ("left_s", "pause_s"), [(9.0, 1.0), (1.1, 1.0), (0.5, 0.5), (0.0, SOON_S), (-9.0, SOON_S)]
)
def test_a_waiting_record_is_looked_at_again_before_its_time_is_up(
    left_s: float, pause_s: float
) -> None:
    dispatch = a_dispatch(remaining_s=END_MARGIN_S + left_s)

    assert look_again_in_s(dispatch, 1.0) == pytest.approx(pause_s, abs=0.002)


@pytest.mark.parametrize("state", [State.QUEUED, State.DISPATCHING, State.DISPATCHED])
def test_a_deadline_between_two_refused_attempts_has_the_refusal_as_its_reason(
    state: State,
) -> None:
    dispatch = a_cut_short_dispatch(state, since_s=1.9)

    assert why_too_late(dispatch, [FREE]).code == "rejected: wrong_client"
    transition, reason = after_no_join(dispatch, [FREE])
    assert transition is FAILED
    assert reason.code == "rejected: wrong_client"


@pytest.mark.parametrize(
    ("state", "code"),
    [(State.QUEUED, "dispatcher_unavailable"), (State.DISPATCHED, "join_timeout")],
)
def test_an_attempt_that_had_its_time_has_a_reason_of_its_own(state: State, code: str) -> None:
    assert why_too_late(a_cut_short_dispatch(state, since_s=2.1), [FREE]).code == code


def a_cut_short_dispatch(state: State, *, since_s: float) -> Dispatch:
    """Its third attempt is `since_s` old at the deadline; the first one was refused."""
    at_ms = 1_019_000
    return a_dispatch(
        state=state,
        generation=3,
        read_at_ms=at_ms,
        updated_at_ms=at_ms - int(since_s * 1000),
        attempts=(
            Attempt(generation=1, reason="rejected: wrong_client"),
            Attempt(generation=2),
            Attempt(generation=3),
        ),
    )
