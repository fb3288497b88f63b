"""When is a server that answers nobody left alone, and when is it asked again?"""

from __future__ import annotations

import pytest

from dispatcher.livekit.circuit_breaker import Breaker

PROBE_AFTER_S = 5.0


@pytest.fixture
def breaker() -> Breaker:
    return Breaker(threshold=3, probe_after_s=PROBE_AFTER_S)


def fail(breaker: Breaker, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        begun = breaker.begin(now)
        assert begun is not None
        breaker.failed(begun, now)


def test_it_opens_when_enough_calls_in_a_row_got_no_answer(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert not breaker.is_open

    begun = breaker.begin(0.0)
    assert begun is not None
    assert breaker.failed(begun, 0.0)  # says so once

    assert breaker.is_open
    assert breaker.begin(0.1) is None


def test_any_answer_in_between_starts_the_count_anew(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert not breaker.answered()
    fail(breaker, 2)

    assert not breaker.is_open


def test_an_open_one_lets_one_call_through_from_time_to_time(breaker: Breaker) -> None:
    fail(breaker, 3, now=100.0)

    assert breaker.refuses(100.0 + PROBE_AFTER_S - 0.1)
    assert not breaker.refuses(100.0 + PROBE_AFTER_S)
    assert breaker.begin(100.0 + PROBE_AFTER_S) is not None
    assert breaker.begin(100.0 + PROBE_AFTER_S) is None  # one, not everybody
    assert breaker.begin(100.0 + 2 * PROBE_AFTER_S) is not None


def test_an_answer_closes_it_at_once(breaker: Breaker) -> None:
    fail(breaker, 3)

    assert breaker.answered()  # says so

    assert not breaker.is_open
    assert breaker.begin(0.0) is not None


def test_time_outs_of_calls_from_before_the_last_answer_do_not_count(breaker: Breaker) -> None:
    begun = [breaker.begin(0.0) for _ in range(5)]
    breaker.answered()

    for each in begun:
        assert each is not None
        assert not breaker.failed(each, 2.0)

    assert not breaker.is_open
