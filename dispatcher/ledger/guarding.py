"""Guards of repeated work and of work on many records: one failure ends no other work.

Expected errors (Redis away, LiveKit away) are handled where they happen. Any other is a fault of
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

# Least time between two logs of the same failure of the same work.
LOG_AGAIN_S: Final = 600.0
# Pause before periodic work starts again after an exception.
AGAIN_S: Final = 1.0
_KEPT: Final = 1000


class Work(StrEnum):
    """Guarded work, by its name in the log and the metric."""

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
    TAKE_JOBS = "take_jobs"
    RENEW_LEASE = "renew_lease"
    RENEW_STARTING = "renew_starting"


class _Log:
    """Latest logged failures; two threads at once may log twice, which does no harm."""

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
        """`expected` errors pass to the caller; `StepFailed` never counts as expected."""
        self._store = store
        self._expected = expected
        self._log = _Log()

    @contextlib.asynccontextmanager
    async def one(self, work: Work, *, of: str = "") -> AsyncIterator[None]:
        """Guard one turn of `work`, for the record, message or client `of`.

        Raises: expected errors only.
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
        """Run `run` until it returns; start it again after an exception."""
        while True:
            with contextlib.suppress(*self._expected):
                async with self.one(work):
                    await run()
                    return
            await asyncio.sleep(AGAIN_S)


class ThreadGuard:
    """`Guard` for threads."""

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
