"""What follows from what has been seen of a dispatch?"""

from __future__ import annotations

from dataclasses import replace
from math import inf

import pytest

from dispatcher.decisions import (
    END_MARGIN_S,
    Fail,
    Redispatch,
    Wait,
    after_no_join,
    can_take,
    eligible,
    is_silent,
    look_again_in_s,
    our_agent,
    silent_in_s,
    time_is_up,
    why_no_agent,
    why_too_late,
)
from dispatcher.leases import GRACE_S
from dispatcher.models import AgentServerReport, Attempt, Dispatch, State
from tests.support import a_dispatch, a_server, an_agent

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


def test_who_has_never_said_that_it_is_alive_is_not_silent() -> None:
    accepted = a_dispatch(state=State.ACCEPTED)
    dispatched = a_dispatch(state=State.DISPATCHED, alive_till_ms=1)

    assert (silent_in_s(accepted), is_silent(accepted)) == (inf, False)
    # Nobody has accepted it: what to wait for is the offer, and it is looked at as often as ever.
    assert (silent_in_s(dispatched), is_silent(dispatched)) == (0, False)


def test_the_agent_of_this_generation_is_ours() -> None:
    agent = an_agent(generation=2)

    assert our_agent(a_dispatch(generation=2), [an_agent(generation=1), agent]) is agent


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
    assert our_agent(a_dispatch(generation=2), [agent]) is None


def test_an_agent_without_our_filter_counts_by_its_name() -> None:
    agent = an_agent(dispatch_id="", generation=None)

    assert our_agent(a_dispatch(), [agent]) is agent


def test_an_empty_room_has_no_agent_of_ours() -> None:
    assert our_agent(a_dispatch(), []) is None


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
    assert after_no_join(dispatch, servers) == Fail(reason=why_no_agent(dispatch, servers))


def test_with_time_and_a_free_slot_left_the_next_attempt_starts_at_once() -> None:
    dispatch = a_dispatch(remaining_s=END_MARGIN_S + 0.1)

    assert not time_is_up(dispatch)
    assert after_no_join(dispatch, [FREE]) == Redispatch(reason=why_no_agent(dispatch, [FREE]))


@pytest.mark.parametrize("servers", [[], [BUSY], [DRAINING], [UNREGISTERED]])
def test_with_time_and_no_free_slot_left_the_dispatch_waits(
    servers: list[AgentServerReport],
) -> None:
    dispatch = a_dispatch()

    assert after_no_join(dispatch, servers) == Wait(reason=why_no_agent(dispatch, servers))


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
    decision = after_no_join(dispatch, [FREE])
    assert isinstance(decision, Fail)
    assert decision.reason.code == "rejected: wrong_client"


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
