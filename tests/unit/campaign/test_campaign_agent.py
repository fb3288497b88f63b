"""The order that a visit gives its agent, and the first agent's failures that the next has not."""

from __future__ import annotations

import pytest

from tests.faults.campaign.agent import Order
from tests.faults.campaign.plan import Behaviour, Visit

FIRST, SECOND = {"usher.generation": "1"}, {"usher.generation": "2"}
FAILING = [Behaviour.RAISES, Behaviour.RAISES_EARLY, Behaviour.RETURNS_EARLY]


def metadata(behaviour: Behaviour) -> str:
    visit = Visit(
        room="room",
        at_s=0.0,
        walks_in_after_s=0.0,
        stay_s=1.0,
        patient=True,
        comes=True,
        agent=behaviour,
        agent_s=1.5,
    )
    return Order.of(visit).as_metadata()


@pytest.mark.parametrize("behaviour", list(Behaviour))
def test_an_order_reaches_the_first_agent_as_the_plan_has_it(behaviour: Behaviour) -> None:
    order = Order.read(metadata(behaviour), FIRST)

    assert order == Order(behaviour=behaviour, seconds=1.5)


@pytest.mark.parametrize("behaviour", list(Behaviour))
def test_the_next_agent_of_a_dispatch_does_not_fail(behaviour: Behaviour) -> None:
    expected = Behaviour.PLAIN if behaviour in FAILING else behaviour

    assert Order.read(metadata(behaviour), SECOND).behaviour is expected


def test_an_agent_that_usher_has_not_dispatched_is_plain() -> None:
    assert Order.read("", {}) == Order()
