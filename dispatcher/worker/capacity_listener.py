"""Wake waiting dispatches when an agent server reports free slots.

An agent server that reports free slots while dispatches wait publishes that on a channel. Every
dispatch worker subscribes; two that wake the same dispatch do no harm.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from kombu.exceptions import OperationalError

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import keys
from dispatcher.ledger.guarding import Work
from dispatcher.lifecycle import sweeping, wake_waiting
from dispatcher.lifecycle.services import Services

GAP_S: Final = 0.1

logger = logging.getLogger(__name__)


async def listen(services: Services) -> None:
    """Wake waiting dispatches whenever agent servers have free slots; never returns."""
    async with services.wakeups.listen_on(keys.CAPACITY_CHANNEL) as news:
        while True:
            await news.wait()
            news.clear()
            try:
                async with services.guard.one(Work.WAKE_FOR_CAPACITY):
                    wake_ups = await wake_waiting.waiting_for(services)
                    await sweeping.publish_all(services, wake_ups)
            except (LedgerUnavailable, OperationalError) as error:
                logger.warning("cannot wake who waits", extra={"error": str(error)})
            # In a burst every accepted job reports free slots again, and one look serves many.
            await asyncio.sleep(GAP_S)
