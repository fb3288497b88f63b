"""The clients that a job may name: those of the agent server's own LiveKit server.

A job names its client and dispatch, and every program with a key of the LiveKit server that offers
the job can write there what it likes. So only a client of that very LiveKit server is believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import client_servers
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.client_servers import clients_at

logger = logging.getLogger(__name__)

# LiveKit waits a second for an agent server's answer, and a claim follows.
LOOK_S: Final = 0.3
# Clients come and go, and move to other LiveKit servers.
FRESH_S: Final = 2.0


class Tenants:
    """The clients of the LiveKit server that one process is registered with."""

    def __init__(self, store: AsyncLedger, *, own_client_id: str) -> None:
        """`own_client_id` is the operator's setting (`USHER_AGENT_CLIENT_ID`); empty: none."""
        self._store = store
        self._own = own_client_id
        self._server = client_servers.own()
        self._here: frozenset[str] | None = None  # None: no worker has told yet
        self._looked_at: float | None = None

    async def here(self, client_id: str) -> bool:
        """Return false when that client's LiveKit server is another one than ours.

        As long as no worker has told where the clients' servers are, every client's may be here.

        Raises:
            LedgerUnavailable: Redis does not answer.
        """
        if self._own and client_id == self._own:
            return True
        if self._here is None:
            await self._look()
        elif client_id not in self._here:
            with contextlib.suppress(LedgerUnavailable):  # then Redis's last answer holds
                await self._look()
        return self._here is None or client_id in self._here

    async def refresh(self) -> None:
        """Look again, unless that was just now. Raises like `here`."""
        if self._looked_at is None or time.monotonic() - self._looked_at > FRESH_S:
            await self._look()

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S):
                told = await self._store.run(client_servers.told())
        except TimeoutError:
            raise LedgerUnavailable("Redis has not said where the clients' LiveKit is") from None
        self._looked_at = time.monotonic()
        if not told:
            return  # the last answer holds
        here = clients_at(self._server, told)
        if not here and self._here is None and not self._own:
            logger.error(
                "every session will be refused here: this agent server is registered with a "
                "LiveKit server that is no client's, by its key or its address; set "
                "USHER_AGENT_CLIENT_ID to the client that it serves, or LIVEKIT_URL and "
                "LIVEKIT_API_KEY to those of the file of clients"
            )
        if here or self._here is None:
            # While a key is changed, a server may still be registered with the one before.
            self._here = here
