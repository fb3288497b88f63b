"""What do several questions that go to Redis together answer, and does one spoil the others?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from dispatcher import keys, ledger, reports
from dispatcher.errors import LedgerUnavailable, LimitReached
from dispatcher.models import NO_LIMITS, Limits, State
from dispatcher.quotas import Admission
from dispatcher.settings import CommonSettings
from dispatcher.step import Step
from dispatcher.store import Ledger
from tests.ownredis import OwnRedis
from tests.support import new_dispatch
from web import together

ONE_SESSION = Limits(max_sessions=1)


@pytest.fixture
def own_store(own_common: CommonSettings) -> Iterator[Ledger]:
    store = Ledger(own_common)
    yield store
    store.close()


def creating(number: int, limits: Limits | None = None) -> Step[Any]:
    new = new_dispatch(f"dsp_{number}", room_name=f"room-{number}")
    return ledger.create(
        new, due_in_s=2, detail={}, admission=Admission(limits=limits or NO_LIMITS)
    )


def ask_together(store: Ledger, steps: list[Step[Any]]) -> list[Any]:
    """Each step's answer, or the error that its caller met."""
    answers: list[Any] = [None] * len(steps)

    def asking(at: int) -> Callable[[], None]:
        def ask() -> None:
            try:
                answers[at] = together.ask(store, steps[at]).answer()
            except Exception as error:
                answers[at] = error

        return ask

    together.do([asking(at) for at in range(len(steps))])
    return answers


def test_each_gets_its_own_answer_and_redis_is_asked_once(store: Ledger, raw: redis.Redis) -> None:
    ask_together(store, [creating(0)])  # Redis knows the script, and the connection is open
    before = raw.info("stats")["total_reads_processed"]
    answers = ask_together(store, [creating(number) for number in range(1, 21)])
    reads = raw.info("stats")["total_reads_processed"] - before
    assert [answer.dispatch_id for answer in answers] == [f"dsp_{n}" for n in range(1, 21)]
    assert all(answer.new and answer.state is State.QUEUED for answer in answers)
    assert reads < 10  # at least twenty when each is asked by itself


def test_two_for_the_same_room_share_its_dispatch(store: Ledger) -> None:
    first, second = ask_together(store, [creating(1), creating(1)])
    assert first.new
    assert not second.new
    assert first.dispatch_id == second.dispatch_id


def test_who_has_reached_a_limit_is_refused_alone(store: Ledger) -> None:
    steps = [creating(1, ONE_SESSION), creating(2, ONE_SESSION), creating(3)]
    first, second, third = ask_together(store, steps)
    assert first.new
    assert isinstance(second, LimitReached)
    assert third.new


def test_scripts_that_redis_has_forgotten_are_sent_again(store: Ledger, raw: redis.Redis) -> None:
    ask_together(store, [creating(0)])
    raw.script_flush()
    assert all(answer.new for answer in ask_together(store, [creating(1), creating(2)]))


def test_an_error_of_one_is_not_the_others(store: Ledger, raw: redis.Redis) -> None:
    raw.set(keys.timeline("dsp_2"), "no list")
    first, second, third = ask_together(store, [creating(1), creating(2), creating(3)])
    assert first.new
    assert isinstance(second, LedgerUnavailable)
    assert third.new


def test_one_may_ask_twice_and_another_not_at_all(store: Ledger) -> None:
    done: list[Any] = []

    def twice() -> None:
        done.append(together.ask(store, reports.ping()).answer())
        done.append(together.ask(store, reports.ping()).answer())

    def never() -> None:
        done.append("never")

    def once() -> None:
        done.append(together.ask(store, reports.ping()).answer())

    together.do([twice, never, once])
    assert done[0] == "never"
    assert len(done) == 4
    assert all(answer > 0 for answer in done[1:])


def test_what_needs_no_reply_is_done_before_it_is_read(store: Ledger) -> None:
    done: list[str] = []

    def asking(name: str) -> Callable[[], None]:
        def ask() -> None:
            question = together.ask(store, reports.ping())
            done.append(f"{name} works")
            question.answer()
            done.append(f"{name} has it")

        return ask

    together.do([asking("one"), asking("two")])
    assert done == ["one works", "two works", "one has it", "two has it"]


def test_who_ends_without_wanting_the_answer_holds_nobody_up(store: Ledger) -> None:
    answers: list[float] = []

    def gone() -> None:
        together.ask(store, creating(1))
        raise RuntimeError("gone")

    def waiting() -> None:
        answers.append(together.ask(store, reports.ping()).answer())

    with pytest.raises(RuntimeError, match="gone"):
        together.do([gone, waiting])
    # Its reply has been read all the same: it is nobody else's.
    assert ask_together(store, [reports.ping()])[0] > 0


def test_outside_a_turn_of_the_loop_it_is_asked_at_once(store: Ledger) -> None:
    assert together.ask(store, reports.ping()).answer() > 0


def test_after_a_restart_of_redis_all_are_answered(own_store: Ledger, own_redis: OwnRedis) -> None:
    ask_together(own_store, [creating(0)])
    own_redis.stop()
    own_redis.start()
    assert all(answer.new for answer in ask_together(own_store, [creating(1), creating(2)]))


def test_a_redis_that_hangs_costs_all_of_them_one_time_out(
    own_store: Ledger, own_redis: OwnRedis
) -> None:
    ask_together(own_store, [creating(0)])
    with own_redis.frozen():
        answers: list[Any] = []
        waited_s = together.do(
            [
                lambda: answers.append(_refused(own_store, creating(1))),
                lambda: answers.append(_refused(own_store, creating(2))),
                lambda: answers.append(_refused(own_store, creating(3))),
            ]
        )
    assert answers == [True, True, True]
    assert waited_s < 2 * own_store._redis.get_connection_kwargs()["socket_timeout"]


def _refused(store: Ledger, step: Step[Any]) -> bool:
    try:
        together.ask(store, step).answer()
    except LedgerUnavailable:
        return True
    return False


def test_what_cannot_be_sent_leaves_no_connection_behind(store: Ledger, raw: redis.Redis) -> None:
    ask_together(store, [creating(0)])
    clients = raw.info("clients")["connected_clients"]
    unsendable = ledger.create(
        new_dispatch("dsp_1", agent_metadata="half a character: \ud800"),
        due_in_s=2,
        detail={},
        admission=Admission(limits=NO_LIMITS),
    )
    for _ in range(5):
        with pytest.raises(UnicodeEncodeError):
            ask_together(store, [creating(1), unsendable])
        [own] = ask_together(store, [unsendable])
        assert isinstance(own, UnicodeEncodeError)
        [answer] = ask_together(store, [creating(2)])
        assert answer.dispatch_id == "dsp_2"
    assert raw.info("clients")["connected_clients"] <= clients + 1
