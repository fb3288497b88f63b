"""Keep work going that is done again and again, or for many records: one failure ends no other.

What is expected (Redis away, LiveKit away) is handled where it happens. Anything else is a fault of
Usher's or of a library's: it is logged once, with its traceback, and counted each time
(`usher_internal_errors_total`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from enum import StrEnum
from typing import Final

from dispatcher.errors import LedgerUnavailable, StepFailed
from dispatcher.ledger import reports
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.step import Step

logger = logging.getLogger(__name__)

# The same failure of the same work is logged no more often than this.
LOG_AGAIN_S: Final = 600.0
# So long after a periodic work has ended with an exception it is begun again.
AGAIN_S: Final = 1.0
_KEPT: Final = 1000


class Work(StrEnum):
    """What is guarded, as the log and the metric name it."""

    SWEEP = "sweep"
    STAND_IN_FOR_BEAT = "stand_in_for_beat"
    WEBHOOKS_DUE = "webhooks_due"
    PUBLISH = "publish"
    WAKE_FOR_CAPACITY = "wake_for_capacity"
    HEARTBEAT = "heartbeat"
    LIVEKIT_PROBE = "livekit_probe"
    LOOK_FOR_DATA_LOSS = "look_for_data_loss"
    READ_NEWS = "read_news"
    KEEP_PROMISES = "keep_promises"
    NOTE_KEY_USES = "note_key_uses"
    REPORT_AGENT_SERVER = "report_agent_server"
    WATCH_LOAD = "watch_load"
    SUM_UP = "sum_up"
    RENEW_LEASE = "renew_lease"
    RENEW_STARTING = "renew_starting"


class _Log:
    """What has been logged lately; two threads at once log twice: no harm."""

    def __init__(self) -> None:
        self._logged_at: dict[tuple[str, str, str], float] = {}

    def tell(self, work: Work, of: str, error: Exception) -> None:
        what = (work, of, type(error).__name__)
        now = time.monotonic()
        if now - self._logged_at.get(what, -LOG_AGAIN_S) < LOG_AGAIN_S:
            return
        if len(self._logged_at) >= _KEPT:
            self._logged_at.clear()
        self._logged_at[what] = now
        logger.error(
            "%s has failed, and goes on",
            work,
            exc_info=error,
            extra={"work": work, "of": of, "error": what[2]},
        )


class Guard:
    """The guarded work of one event loop."""

    def __init__(
        self,
        store: AsyncLedger,
        *,
        expected: tuple[type[Exception], ...] = (LedgerUnavailable,),
    ) -> None:
        """`expected` errors are raised, for the caller to handle; a step that failed is none."""
        self._store = store
        self._expected = expected
        self._log = _Log()

    @contextlib.asynccontextmanager
    async def one(self, work: Work, *, of: str = "") -> AsyncIterator[None]:
        """A block that is one turn of `work`, for the record, message or client `of`.

        Raises: what is expected, and nothing else.
        """
        try:
            yield
        except Exception as error:
            if isinstance(error, self._expected) and not isinstance(error, StepFailed):
                raise
            self._log.tell(work, of, error)
            with contextlib.suppress(LedgerUnavailable):
                await self._store.run(reports.internal_error(work))

    async def keep(self, work: Work, run: Callable[[], Awaitable[None]]) -> None:
        """Have `run` run for as long as it wants to, again whenever an exception has ended it."""
        while True:
            with contextlib.suppress(*self._expected):
                async with self.one(work):
                    await run()
                    return
            await asyncio.sleep(AGAIN_S)


class ThreadGuard:
    """The same for threads."""

    def __init__(self, run: Callable[[Step[int]], int]) -> None:
        """`run` carries a step out, as `Ledger.run` does."""
        self._run = run
        self._log = _Log()

    @contextlib.contextmanager
    def one(self, work: Work, *, of: str = "") -> Iterator[None]:
        """As `Guard.one`.

        Raises:
            LedgerUnavailable: Redis did not answer.
        """
        try:
            yield
        except Exception as error:
            if isinstance(error, LedgerUnavailable) and not isinstance(error, StepFailed):
                raise
            self._log.tell(work, of, error)
            with contextlib.suppress(LedgerUnavailable):
                self._run(reports.internal_error(work))
