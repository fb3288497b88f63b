"""How many agents may begin to join beside those that are joining?"""

from __future__ import annotations

from tests.support.values import a_server
from worker_agent.join_limit import AT_ONCE, TOGETHER, Joining


def jobs(count: int, first: int = 0) -> set[str]:
    return {f"AJ_{number}" for number in range(first, first + count)}


def test_an_idle_one_takes_a_whole_burst() -> None:
    assert Joining().room_for(()) == TOGETHER


def test_while_a_burst_joins_the_rest_of_it_may_begin_and_no_more() -> None:
    joining = Joining()

    assert joining.room_for(jobs(1)) == TOGETHER - 1
    assert joining.room_for(jobs(TOGETHER)) == 0
    for job_id in jobs(TOGETHER - AT_ONCE):
        joining.ended(job_id)
    assert joining.room_for(jobs(TOGETHER)) == 0


def test_after_that_burst_a_few_are_joining_at_a_time() -> None:
    joining = Joining()
    joining.room_for(jobs(TOGETHER))

    for job_id in jobs(TOGETHER - 3):
        joining.ended(job_id)

    assert joining.room_for(jobs(TOGETHER)) == AT_ONCE - 3
    assert joining.room_for(jobs(TOGETHER + AT_ONCE - 3)) == 0


def test_when_all_have_joined_it_takes_a_whole_burst_again() -> None:
    joining = Joining()
    joining.room_for(jobs(TOGETHER))

    for job_id in jobs(TOGETHER):
        joining.ended(job_id)

    assert joining.room_for(jobs(TOGETHER)) == TOGETHER


def test_a_job_that_has_ended_is_joining_no_more_and_is_forgotten() -> None:
    joining = Joining()
    joining.room_for(jobs(TOGETHER))
    joining.ended("AJ_0")

    assert joining.room_for(()) == TOGETHER
    assert not joining._joined


def test_those_in_a_steady_stream_are_never_held_up() -> None:
    joining = Joining()

    for number in range(500):
        assert joining.room_for(jobs(5, first=number)) > 0
        joining.ended(f"AJ_{number}")


def test_no_more_are_sent_than_may_begin() -> None:
    assert a_server(slots=100, used_slots=10, starts=6).free_slots == 6
    assert a_server(slots=100, used_slots=98, starts=6).free_slots == 2
    assert a_server(slots=100, used_slots=10, takes=3, starts=6).free_slots == 3
