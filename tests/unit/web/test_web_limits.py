"""What is refused before anybody parses or looks anything up?"""

from __future__ import annotations

import contextlib
import time

import pytest

from dispatcher.errors import LimitReached
from web.contract.problems import Problem
from web.state.abuse_limits import (
    MAX_JSON_DEPTH,
    MAX_WRONG_KEYS,
    SpentRequests,
    WrongKeys,
    check_depth,
)

DEEPEST = MAX_JSON_DEPTH


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[" * DEEPEST + b"]" * DEEPEST,
        b'{"a":' * DEEPEST + b"1" + b"}" * DEEPEST,
        b"[" + b",".join([b"[[]]"] * 1000) + b"]",
        b'{"metadata": "' + b"[{" * 10_000 + b'"}',
        rb'{"metadata": "\"' + b"[" * 10_000 + rb'\\", "b": "' + b"[" * 10_000 + b'"}',
    ],
)
def test_a_body_of_allowed_depth_passes_whatever_its_strings_say(body: bytes) -> None:
    check_depth(body)


@pytest.mark.parametrize(
    "body",
    [
        b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
        b'{"a":' * (DEEPEST + 1) + b"1" + b"}" * (DEEPEST + 1),
        b"[" * 10_000 + b"]" * 10_000,
        b"[" * 500_000,
        rb'{"a\\": ' * 10_000,
    ],
)
def test_a_deeper_body_is_refused_with_a_reason(body: bytes) -> None:
    with pytest.raises(Problem, match="nested deeper than 32 levels") as caught:
        check_depth(body)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 40 + b'"' + rb"\"" * 400_000,
        b"[]" * 500_000,
        b"[[]" * 300_000,
        b'"' * 999_999,
        b'[""' * 250_000,
    ],
    ids=["open string", "pairs", "half-open pairs", "quotes", "strings"],
)
def test_a_body_made_to_be_slow_takes_no_time(body: bytes) -> None:
    started = time.process_time()
    with contextlib.suppress(Problem):
        check_depth(body)
    assert time.process_time() - started < 0.5


def test_wrong_keys_are_counted_by_address_and_the_next_is_told_to_wait() -> None:
    wrong = WrongKeys()

    assert [wrong.one_more("10.0.0.1") for _ in range(MAX_WRONG_KEYS)] == [0] * MAX_WRONG_KEYS
    assert 0 < wrong.one_more("10.0.0.1") <= 60
    assert wrong.one_more("10.0.0.2") == 0


def test_the_addresses_of_one_ipv6_network_count_as_one() -> None:
    wrong = WrongKeys()

    waits = [wrong.one_more(f"2001:db8::{n:x}") for n in range(MAX_WRONG_KEYS + 1)]

    assert waits[:-1] == [0] * MAX_WRONG_KEYS
    assert waits[-1] > 0
    assert wrong.one_more("2001:db8:0:1::1") == 0


def test_many_addresses_cost_a_bounded_amount_of_memory() -> None:
    wrong = WrongKeys()

    for number in range(30_000):
        wrong.one_more(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")

    assert len(wrong._seen) <= 10_000


def test_a_client_that_has_used_up_its_requests_is_refused_until_it_may_send_one_more() -> None:
    spent = SpentRequests()

    spent.note("acme", public=False, refused=LimitReached("3", retry_after_s=0.1, spent=True))

    with pytest.raises(LimitReached, match="3") as refused:
        spent.check("acme", public=False)
    assert 0 < refused.value.retry_after_s <= 0.1
    spent.check("acme", public=True)
    spent.check("globex", public=False)
    time.sleep(0.1)
    spent.check("acme", public=False)


def test_a_refusal_that_is_not_for_all_requests_is_not_kept() -> None:
    spent = SpentRequests()

    spent.note("acme", public=False, refused=LimitReached("sessions", retry_after_s=5.0))

    spent.check("acme", public=False)


def test_a_refusal_is_kept_for_a_second_at_the_most_because_limits_may_be_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    spent = SpentRequests()
    spent.note("acme", public=False, refused=LimitReached("1", retry_after_s=60.0, spent=True))
    later = time.monotonic() + 1.01
    monkeypatch.setattr("web.state.abuse_limits.time.monotonic", lambda: later)

    spent.check("acme", public=False)
