"""The retry policy for requests for an agent, the only LiveKit calls that are repeated.

All others (looks, removals) are made again with the next poll, or by the sweeper. 3 attempts with
1 s and 2 s between them, for `TransientLiveKitError` alone. Any other exception passes through at
the first attempt, and so does `LiveKitAway`: no thread waits for a server behind an open circuit
breaker. No jitter: docs/decisions/0009-no-jitter-in-retries.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
)

from dispatcher.errors import LiveKitAway, TransientLiveKitError

MAX_ATTEMPTS: Final = 3
FIRST_WAIT_S: Final = 1.0
MAX_WAIT_S: Final = 4.0


def _worth_a_wait(error: BaseException) -> bool:
    return isinstance(error, TransientLiveKitError) and not isinstance(error, LiveKitAway)


def policy(
    *,
    on_failure: Callable[[int, BaseException], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncRetrying:
    """Return the policy: `await policy(...)(function, ...)` raises the last attempt's own error.

    Args:
        on_failure: called with the number (from 1) and the error of each attempt that failed.
        sleep: replaces the waiting, in seconds (tests).
    """

    def note(state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if error is not None:
            on_failure(state.attempt_number, error)

    return AsyncRetrying(
        sleep=sleep,
        stop=stop_after_attempt(MAX_ATTEMPTS),
        wait=wait_exponential(multiplier=FIRST_WAIT_S, max=MAX_WAIT_S),
        retry=retry_if_exception(_worth_a_wait),
        after=note,
        reraise=True,
    )
