"""Keep work going that is done again and again, or for many records: one failure ends no other.

What is expected (Redis away, LiveKit away) is handled where it happens. Anything else is a fault of
Usher's or of a library's: it is logged once, with its traceback, until the same work has succeeded
again, and counted each time (`usher_internal_errors_total`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

from kombu.exceptions import OperationalError

from dispatcher import reports
from dispatcher.errors import LedgerUnavailable
from dispatcher.store import AsyncLedger

logger = logging.getLogger(__name__)


class Guard:
    """The guarded work of one process; belongs to its event loop."""

    def __init__(self, store: AsyncLedger) -> None:
        self._store = store
        self._failing: dict[str, str] = {}

    @contextlib.asynccontextmanager
    async def one(self, work: str, *, of: str = "") -> AsyncIterator[None]:
        """A block that is one turn of `work`, for the record or client `of`.

        Raises:
            LedgerUnavailable: Redis did not answer.
            kombu.exceptions.OperationalError: a message could not be published.
        """
        try:
            yield
        except (LedgerUnavailable, OperationalError):
            raise
        except Exception as error:
            await self._tell(work, of, error)
        else:
            self._failing.pop(work, None)

    async def _tell(self, work: str, of: str, error: Exception) -> None:
        kind = type(error).__name__
        if self._failing.get(work) != kind:
            self._failing[work] = kind
            logger.error(
                "%s has failed, and goes on",
                work,
                exc_info=error,
                extra={"work": work, "of": of, "error": kind},
            )
        with contextlib.suppress(LedgerUnavailable):
            await self._store.run(reports.internal_error(work))
