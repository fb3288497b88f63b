"""What follows when an agent is not heard of, an offer is lost, or the time is over?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from dispatcher.domain import agent_losses
from dispatcher.domain.agent_losses import LONG_LIFE_S, Verdict
from dispatcher.domain.failure_reasons import why_no_agent, why_too_late
from dispatcher.domain.models import AgentServerReport, Dispatch, State
from dispatcher.domain.rooms import AgentParticipant, RoomView, surplus_agents
from dispatcher.domain.state_machine import FAILED, NEXT_GENERATION
from dispatcher.domain.verification_steps import after_no_join
from tests.support.values import a_dispatch, a_server, an_agent

OURS = an_agent()
ANOTHER = an_agent(identity="agent-AJ_2", dispatch_id="", generation=None)
BEFORE = an_agent(identity="agent-AJ_0", generation=0)


def a_joined(*, lived_s: float = 5.0, **changes: Any) -> Dispatch:
    """A joined record, as read when its agent had been there for so long."""
    dispatch = a_dispatch(state=State.JOINED, agent_identity=OURS.identity, **changes)
    return a_dispatch(
        state=State.JOINED,
        agent_identity=OURS.identity,
        joined_at_ms=dispatch.read_at_ms - int(lived_s * 1000),
        **changes,
    )


def judge(dispatch: Dispatch, room: RoomView, *, fenced: bool) -> Verdict:
    return agent_losses.judge(dispatch, room, fenced=fenced, max_losses=5, abandon_after_s=300)


@pytest.mark.parametrize("agents", [(), (OURS,), (BEFORE,)], ids=["gone", "listed", "older one"])
@pytest.mark.parametrize(
    ("people", "person_seen", "verdict"),
    [
        (0, True, Verdict.OVER),
        (0, False, Verdict.REPLACE),
        (1, True, Verdict.REPLACE),
        (1, False, Verdict.REPLACE),
    ],
)
def test_the_silence_of_an_agent_that_renews_counts_whatever_livekit_lists(
    people: int, verdict: Verdict, agents: tuple[AgentParticipant, ...], person_seen: bool
) -> None:
    room = RoomView(agents=agents, people=people)

    assert judge(a_joined(person_seen=person_seen), room, fenced=True) is verdict


@pytest.mark.parametrize(("waited_s", "verdict"), [(299, Verdict.REPLACE), (300, Verdict.OVER)])
def test_nobody_is_awaited_for_ever(waited_s: int, verdict: Verdict) -> None:
    created_at_ms = a_joined().read_at_ms - waited_s * 1000

    dispatch = a_joined(created_at_ms=created_at_ms)

    assert judge(dispatch, RoomView(agents=(), people=0), fenced=True) is verdict


@pytest.mark.parametrize(
    ("agents", "people", "person_seen", "verdict"),
    [
        ((OURS,), 1, True, Verdict.ALIVE),
        ((OURS,), 1, False, Verdict.ALIVE),
        ((OURS,), 0, False, Verdict.ALIVE),
        ((OURS,), 0, True, Verdict.ALIVE),  # LiveKit closes the room, not we
        ((ANOTHER,), 1, True, Verdict.ALIVE),
        ((BEFORE,), 1, True, Verdict.REPLACE),
        ((), 1, True, Verdict.REPLACE),
        ((), 0, True, Verdict.OVER),
        ((), 0, False, Verdict.REPLACE),
    ],
)
def test_an_agent_that_renews_nothing_is_alive_while_livekit_lists_it(
    agents: tuple[AgentParticipant, ...], people: int, person_seen: bool, verdict: Verdict
) -> None:
    room = RoomView(agents=agents, people=people)

    assert judge(a_joined(person_seen=person_seen), room, fenced=False) is verdict


@pytest.mark.parametrize(
    ("losses", "lived_s", "verdict"),
    [
        (0, 0.5, Verdict.REPLACE),
        (4, 0.5, Verdict.REPLACE),
        (5, 0.5, Verdict.PARK),
        (9, LONG_LIFE_S - 0.1, Verdict.PARK),
        (5, LONG_LIFE_S, Verdict.REPLACE),
    ],
)
def test_a_series_of_short_lives_ends_in_no_more_replacements(
    losses: int, lived_s: float, verdict: Verdict
) -> None:
    room = RoomView(agents=(), people=1)

    dispatch = a_joined(losses=losses, lived_s=lived_s)

    assert judge(dispatch, room, fenced=True) is verdict


def test_in_an_empty_room_a_series_of_short_lives_is_over_too() -> None:
    room = RoomView(agents=(), people=0)

    assert judge(a_joined(losses=9, person_seen=True), room, fenced=True) is Verdict.OVER


def test_the_agent_that_the_record_stands_by_is_not_surplus() -> None:
    assert surplus_agents(a_joined(), [OURS], fenced=True) == []
    assert surplus_agents(a_joined(), [OURS], fenced=False) == []


@pytest.mark.parametrize(
    ("agent", "surplus"),
    [
        (BEFORE, True),
        (an_agent(identity="agent-AJ_2", generation=2), True),
        (an_agent(identity="agent-AJ_2"), True),
        (an_agent(identity="agent-AJ_2", generation=None), True),
        (an_agent(identity="agent-AJ_2", dispatch_id="", generation=None), True),
        (an_agent(identity="agent-AJ_2", dispatch_id="dsp_other"), False),
        (an_agent(identity="other", dispatch_id="", agent_name="another-agent"), False),
        (an_agent(identity="other", dispatch_id="", agent_name=""), False),
    ],
    ids=[
        "older",
        "newer",
        "twin",
        "no generation",
        "by its name",
        "another dispatch",
        "another name",
        "no name",
    ],
)
def test_every_other_agent_of_the_dispatch_is_surplus_and_nobody_elses(
    agent: AgentParticipant, surplus: bool
) -> None:
    found = surplus_agents(a_joined(), [OURS, agent], fenced=False)
    assert found == ([agent] if surplus else [])


def test_an_agent_that_goes_by_its_name_alone_is_not_surplus_where_agents_are_fenced() -> None:
    assert surplus_agents(a_joined(), [OURS, ANOTHER], fenced=True) == []


@pytest.mark.parametrize(
    ("left_by", "people", "verdict"),
    [
        ("program", 2, Verdict.OVER),
        ("program", 0, Verdict.OVER),
        ("people_left", 0, Verdict.OVER),
        ("people_left", 1, Verdict.REPLACE),  # they have come back
    ],
)
def test_a_leaving_one_that_falls_silent_is_over_unless_its_people_are_back(
    left_by: str, people: int, verdict: Verdict
) -> None:
    leaving = replace(a_joined(person_seen=True), state=State.LEAVING, left_by=left_by)

    assert judge(leaving, RoomView(agents=(OURS,), people=people), fenced=True) is verdict


@pytest.mark.parametrize(("asked_ago_s", "verdict"), [(5.0, Verdict.REPLACE), (25.0, Verdict.OVER)])
def test_one_who_has_asked_again_lately_is_still_to_come(
    asked_ago_s: float, verdict: Verdict
) -> None:
    lost = a_joined(person_seen=True)
    asked = replace(lost, asked_at_ms=lost.read_at_ms - int(asked_ago_s * 1000))

    assert judge(asked, RoomView(agents=(), people=0), fenced=True) is verdict


def test_how_long_an_agent_has_lived_is_told_by_redis_s_clock_and_not_by_livekit_s() -> None:
    behind = a_joined(lived_s=5.0, losses=3)  # LiveKit's clock is a minute behind
    behind = replace(
        behind,
        joined_seen_at_ms=behind.joined_at_ms or 0,
        joined_at_ms=(behind.joined_at_ms or 0) - 61_000,
    )

    assert agent_losses.losses_in_a_row(behind) == 4


@pytest.mark.parametrize("servers", [[], [a_server()]])
@pytest.mark.parametrize("state", [State.QUEUED, State.WAITING])
def test_what_waited_for_something_is_too_late_because_of_that(
    state: State, servers: list[AgentServerReport]
) -> None:
    dispatch = a_dispatch(state=state, failure_reason="no_capacity", failure_message="full")

    why = why_too_late(dispatch, servers)

    assert (why.code, why.message) == ("no_capacity", "full")


@pytest.mark.parametrize("servers", [[], [a_server()]])
def test_what_nobody_took_up_is_too_late_because_of_the_dispatcher(
    servers: list[AgentServerReport],
) -> None:
    assert why_too_late(a_dispatch(state=State.QUEUED), servers).code == "dispatcher_unavailable"


@pytest.mark.parametrize("state", sorted(set(State) - {State.QUEUED, State.DISPATCHING}))
def test_what_was_taken_up_is_too_late_because_no_agent_came(state: State) -> None:
    dispatch = a_dispatch(state=state)

    assert why_too_late(dispatch, []) == why_no_agent(dispatch, [])


@pytest.mark.parametrize("remaining_s", [15.0, 1.0])
def test_without_reports_only_the_absence_of_an_agent_is_known(remaining_s: float) -> None:
    dispatch = a_dispatch(remaining_s=remaining_s)

    why = why_no_agent(dispatch, [], fenced=False)

    assert why.code == why_too_late(dispatch, [], fenced=False).code == "join_timeout"
    expected = NEXT_GENERATION if remaining_s > 2 else FAILED
    assert after_no_join(dispatch, [], fenced=False) == (expected, why)
