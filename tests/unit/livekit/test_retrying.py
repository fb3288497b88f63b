"""Is a LiveKit call tried three times, 1 s and 2 s apart, for transient errors and nothing else?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from dispatcher.errors import (
    ConfigurationError,
    DispatchFailed,
    LedgerUnavailable,
    LiveKitError,
    PermanentLiveKitError,
    RedispatchRefused,
    TransientLiveKitError,
    UnknownDispatch,
)
from dispatcher.livekit.retry import MAX_ATTEMPTS, policy


class Trial:
    """A call that ends in turn as `outcomes` say, and what the policy did about it."""

    def __init__(self, *outcomes: BaseException | str) -> None:
        self._outcomes = list(outcomes)
        self.calls = 0
        self.waits_s: list[float] = []
        self.noted: list[tuple[int, BaseException]] = []

    async def _call(self) -> str:
        self.calls += 1
        outcome = self._outcomes[self.calls - 1]
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def _sleep(self, seconds: float) -> None:
        self.waits_s.append(seconds)

    async def run(self) -> str:
        retrying = policy(
            on_failure=lambda number, error: self.noted.append((number, error)), sleep=self._sleep
        )
        answer: str = await retrying(self._call)
        return answer


def transient(text: str = "LiveKit cannot be reached") -> TransientLiveKitError:
    return TransientLiveKitError(text, outcome_unknown=False)


async def test_a_transient_error_is_tried_three_times_with_waits_of_one_and_two_seconds() -> None:
    trial = Trial(*(transient() for _ in range(MAX_ATTEMPTS)))

    with pytest.raises(TransientLiveKitError):
        await trial.run()

    assert trial.calls == 3
    assert trial.waits_s == [1.0, 2.0]


async def test_the_error_of_every_failed_try_is_reported_in_order() -> None:
    errors = [transient("first"), transient("second"), transient("third")]
    trial = Trial(*errors)

    with pytest.raises(TransientLiveKitError):
        await trial.run()

    assert trial.noted == [(1, errors[0]), (2, errors[1]), (3, errors[2])]


async def test_the_last_error_itself_is_raised() -> None:
    last = transient("third")
    trial = Trial(transient("first"), transient("second"), last)

    with pytest.raises(TransientLiveKitError) as caught:
        await trial.run()

    assert caught.value is last


async def test_success_at_the_second_try_ends_the_trying() -> None:
    error = transient()
    trial = Trial(error, "AD_1")

    assert await trial.run() == "AD_1"
    assert trial.waits_s == [1.0]
    assert trial.noted == [(1, error)]


async def test_success_at_the_first_try_waits_for_nothing_and_reports_nothing() -> None:
    trial = Trial("AD_1")

    assert await trial.run() == "AD_1"
    assert (trial.calls, trial.waits_s, trial.noted) == (1, [], [])


@pytest.mark.parametrize(
    "make",
    [
        PermanentLiveKitError,
        LiveKitError,
        UnknownDispatch,
        LedgerUnavailable,
        ConfigurationError,
        RedispatchRefused,
        DispatchFailed,
        ValueError,
        RuntimeError,
        TimeoutError,
        ConnectionError,
        asyncio.CancelledError,
        KeyboardInterrupt,
    ],
)
async def test_any_other_exception_passes_straight_through(
    make: Callable[[str], BaseException],
) -> None:
    error = make("something else")
    trial = Trial(error, "never asked for")

    with pytest.raises(type(error)) as caught:
        await trial.run()

    assert caught.value is error
    assert trial.calls == 1
    assert trial.waits_s == []


async def test_a_permanent_error_after_a_transient_one_ends_the_trying() -> None:
    refused = PermanentLiveKitError("LiveKit answered 401")
    trial = Trial(transient(), refused, "never asked for")

    with pytest.raises(PermanentLiveKitError):
        await trial.run()

    assert trial.calls == 2
    assert trial.waits_s == [1.0]


async def test_one_policy_object_starts_counting_anew_for_every_call() -> None:
    for _ in range(2):
        trial = Trial(transient(), transient(), "AD_1")
        assert await trial.run() == "AD_1"
        assert trial.waits_s == [1.0, 2.0]
