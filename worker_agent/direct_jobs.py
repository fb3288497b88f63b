"""Take the jobs that Usher itself gives to this agent server, over Redis.

They are in the agent server's own list (`dispatcher/ledger/placing.py`). livekit-agents is asked as
LiveKit asks it, so the program's `on_request` and the request filter decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from google.protobuf.json_format import Parse, ParseError
from livekit.protocol.agent import Job

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import keys, placing
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.guarding import Guard, Work
from dispatcher.ledger.pubsub import Wakeups
from dispatcher.settings import CommonSettings
from worker_agent.livekit_workarounds.placed_jobs import PlacedJobs

logger = logging.getLogger(__name__)

# Interval between looks into the list without news.
LOOK_S: Final = 2.0


class DirectJobs:
    """Reads one agent server's list of jobs; belongs to its event loop."""

    def __init__(
        self,
        agent_server_id: str,
        jobs: PlacedJobs,
        store: AsyncLedger,
        common: CommonSettings,
    ) -> None:
        self._id = agent_server_id
        self._jobs = jobs
        self._store = store
        self._guard = Guard(store)
        self._channel = keys.jobs(agent_server_id)
        self._wakeups = Wakeups(common, self._guard, patterns=(), channels=(self._channel,))

    async def run(self) -> None:
        """Take jobs until cancelled."""
        try:
            async with self._wakeups.listen_on(self._channel) as news:
                while True:
                    news.clear()
                    with contextlib.suppress(LedgerUnavailable):
                        async with self._guard.one(Work.TAKE_JOBS):
                            await self._take()
                    with contextlib.suppress(asyncio.TimeoutError):
                        await asyncio.wait_for(news.wait(), LOOK_S)
        finally:
            await self._wakeups.aclose()

    async def _take(self) -> None:
        for text in await self._store.run(placing.take(self._id)):
            try:
                job = Parse(text, Job(), ignore_unknown_fields=True)
            except ParseError as error:  # another release's
                logger.error("a job that was given to this agent server cannot be read: %s", error)
                continue
            self._jobs.offer(job)
