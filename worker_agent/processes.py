"""Watch the processes of an agent server's jobs.

The ledger is told of those that die, and no jobs are taken while none can start.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from livekit.agents import AgentServer
from livekit.agents.job import RunningJobInfo
from livekit.agents.utils.aio import TaskSet

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import dispatches
from dispatcher.ledger.async_client import AsyncLedger
from worker_agent.decisions import Offer, read_offer
from worker_agent.departure import tell_loss
from worker_agent.ending import Cause, Ending
from worker_agent.livekit_workarounds import process_pool
from worker_agent.request_filter import RequestFilter

logger = logging.getLogger(__name__)

# Failed starts in a row after which no job is taken. One alone may be a process killed for memory.
_FAILURES: Final = 3
_TRY_AGAIN_S: Final = 10.0


class Processes:
    """The job processes of one agent server; belongs to its event loop."""

    def __init__(
        self, server: AgentServer, request_filter: RequestFilter, store: AsyncLedger
    ) -> None:
        self._server = server
        self._filter = request_filter
        self._store = store
        self._failures = 0
        self._tasks = TaskSet()

    def watch(self) -> None:
        """Begin to watch; called when the server has started its first processes, or failed to."""
        self._filter.is_assigned = lambda job_id: process_pool.is_assigned(self._server, job_id)
        if not process_pool.watch(self._server, died=self._died, started=self._started):
            return
        if not process_pool.has_warm_process(self._server):
            self._failures = _FAILURES - 1  # livekit-agents has waited for one in vain

    def _started(self, could: bool) -> None:
        self._failures = 0 if could else self._failures + 1
        cannot_start = self._failures >= _FAILURES
        if cannot_start == self._filter.cannot_start:
            return
        self._filter.cannot_start = cannot_start
        if cannot_start and not process_pool.keeps_idle(self._server):
            # This server starts processes only for jobs: a job is let through now and then.
            asyncio.get_running_loop().call_later(_TRY_AGAIN_S, self._try_again)
        if cannot_start:
            logger.error(
                "no process for a job can start: this agent server takes no sessions until one "
                "does; look for 'error initializing process' above (an exception in the program's "
                "setup_fnc, a time-out of initialize_process_timeout, too little memory)"
            )
        else:
            logger.warning("processes start again: this agent server takes sessions")
        self._filter.changed()

    def _try_again(self) -> None:
        self._failures = _FAILURES - 1
        self._filter.cannot_start = False
        self._filter.changed()

    def _died(self, info: RunningJobInfo, how: str) -> None:
        offer = read_offer(info.job)
        if offer.dispatch_id:
            self._tasks.create_task(self._tell(offer, how))

    async def _tell(self, offer: Offer, how: str) -> None:
        logger.error("a job's process has died", extra={**offer.log_fields, "how": how})
        with contextlib.suppress(LedgerUnavailable):  # then the end of its lease tells
            dispatch = await self._store.run(dispatches.read(offer.dispatch_id))
            ending = Ending(cause=Cause.LOST, reason=how)
            was_in_room = (
                dispatch is not None
                and dispatch.job_id == offer.job_id
                and bool(dispatch.agent_identity)
            )
            await tell_loss(self._store.run, offer, ending, dispatch, was_in_room=was_in_room)
        self._filter.changed()
