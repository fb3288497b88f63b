"""To which agent servers may Usher itself give a dispatch's job?"""

from __future__ import annotations

import pytest

from dispatcher.domain.agent_servers import candidates
from dispatcher.domain.models import DIRECT, AgentServerReport, Attempt, Dispatch
from tests.support.values import a_dispatch, a_server

SERVERS = [a_server(f"server-{number}", direct=True) for number in (1, 2, 3)]


def after(*ends: tuple[str, str], first_generation: int = 1) -> Dispatch:
    """A dispatch whose attempts were placed on these agent servers ("": asked of LiveKit)."""
    attempts = tuple(
        Attempt(
            generation=number,
            placement=DIRECT if server else "",
            agent_server_id=server,
            outcome=outcome,
        )
        for number, (server, outcome) in enumerate(ends, 1)
    )
    return a_dispatch(
        generation=len(ends) + 1, attempts=attempts, first_generation=first_generation
    )


def numbers(dispatch: Dispatch, servers: list[AgentServerReport] = SERVERS) -> list[int]:
    return [int(each[-1]) for each in candidates(dispatch, servers)]


def test_every_agent_server_with_room_may_have_it() -> None:
    assert numbers(after()) == [1, 2, 3]


@pytest.mark.parametrize("wrong", [{"direct": False}, {"used_slots": 4}, {"draining": True}])
def test_one_that_cannot_take_it_may_not(wrong: dict[str, object]) -> None:
    server = a_server("server-1", **{"direct": True, **wrong})

    assert numbers(after(), [server]) == []


@pytest.mark.parametrize("outcome", ["given_up", "lost", "crashed", "abandoned"])
def test_one_that_has_failed_it_may_not_have_it_again(outcome: str) -> None:
    assert numbers(after(("server-2", outcome))) == [1, 3]


def test_one_whose_agent_was_there_until_its_people_left_may() -> None:
    assert numbers(after(("server-2", "left"))) == [1, 2, 3]


def test_livekit_is_asked_after_two_in_a_row_that_took_nothing() -> None:
    assert numbers(after(("server-1", "given_up"), ("server-2", "given_up"))) == []


def test_what_was_before_the_latest_request_counts_no_longer() -> None:
    dispatch = after(("server-1", "given_up"), ("server-2", "given_up"), first_generation=3)

    assert numbers(dispatch) == [1, 2, 3]


def test_an_attempt_of_livekits_ends_the_row() -> None:
    dispatch = after(("server-1", "given_up"), ("server-2", "given_up"), ("", "given_up"))

    assert numbers(dispatch) == [3]
