"""Detect that Redis has lost its data.

Without an append-only file a restarted Redis is empty and still answers every query. So each
dispatch worker remembers a mark that is written once, and logs when the mark has changed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import restoring
from dispatcher.lifecycle.services import Services

logger = logging.getLogger(__name__)

PERIOD_S: Final = 1.0


async def watch(services: Services) -> None:
    """Log each loss of data as an error; never returns."""
    seen = ""
    while True:
        with contextlib.suppress(LedgerUnavailable):
            mark, lost = await services.ledger.run(restoring.birth(seen))
            if lost:
                logger.error(
                    "Redis has lost its data: web processes write again what they have promised "
                    "lately, agents what they are there for; what both have forgotten is lost. "
                    "Give Redis an append-only file"
                )
            seen = mark
        await asyncio.sleep(PERIOD_S)
