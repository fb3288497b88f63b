"""A pretended agent server for dispatch-only measurements: `python -m bench.pretended`.

It reports more free slots than any measurement uses, so that the dispatcher takes its ordinary way.
It claims the jobs that Usher gives to it itself, and has the fake LiveKit list their agents. It
renews the leases of the dispatches in `USHER_BENCH_RENEW` (a file of ids, one a line), as the
agents of so many live sessions would.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

import aiohttp
from livekit.protocol.agent import Job

from bench.contenders import AGENT_NAME
from dispatcher.domain.metrics import NOTHING_COUNTED
from dispatcher.domain.models import AgentServerReport, DispatchRef
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import leases, reports
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.settings import CommonSettings, load
from worker_agent import steps
from worker_agent.decisions import AgentServerIdentity, read_offer
from worker_agent.direct_jobs import DirectJobs
from worker_agent.livekit_workarounds.placed_jobs import PlacedJobs

SLOTS = 1_000_000
REPORT = AgentServerReport(
    agent_server_id="pretended",
    agent_name=AGENT_NAME,
    container="pretended",
    client_id="",
    slots=SLOTS,
    used_slots=0,
    load=0.0,
    draining=False,
    registered=True,
    direct=True,
)
IDENTITY = AgentServerIdentity(
    agent_server_id=REPORT.agent_server_id,
    agent_name=REPORT.agent_name,
    container=REPORT.container,
    client_id=REPORT.client_id,
    slots=REPORT.slots,
)


class PretendedJobs(PlacedJobs):
    """The jobs that Usher gives to this agent server itself; none of them runs."""

    def __init__(self, store: AsyncLedger, http: aiohttp.ClientSession) -> None:
        self.ids: dict[str, str] = {}  # of the dispatches, and of their jobs
        self._store = store
        self._http = http
        self._tasks: set[asyncio.Task[None]] = set()

    def offer(self, job: Job) -> None:
        """Claim the job as an agent server does."""
        task = asyncio.create_task(self._claim(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _claim(self, job: Job) -> None:
        offer = read_offer(job)
        step = steps.claim(
            offer, IDENTITY, offered_ago_s=0.0, not_after_ms=None, counts=NOTHING_COUNTED
        )
        with contextlib.suppress(LedgerUnavailable):
            if (await self._store.run(step)).moved:
                self.ids[offer.dispatch_id] = job.id
                url = f"{os.environ['USHER_BENCH_FAKE']}/agents"
                async with self._http.post(url, data=job.SerializeToString()):
                    pass


async def _report(store: AsyncLedger) -> None:
    while True:
        with contextlib.suppress(LedgerUnavailable):
            await store.run(reports.report_agent_server(REPORT, ttl_s=6))
        await asyncio.sleep(2)


async def _renew(store: AsyncLedger, dispatch_id: str, job_id: str) -> None:
    ref = DispatchRef(
        dispatch_id=dispatch_id, client_id="", room_name="", agent_name="", generation=1
    )
    step = leases.renew(ref, job_id=job_id, people=1, abandon_after_s=300, deserted_after_s=300)
    while True:
        with contextlib.suppress(LedgerUnavailable):
            await store.run(step)
        await asyncio.sleep(leases.RENEW_S)


async def main() -> None:
    """Report, claim and renew for ever."""
    common = load(CommonSettings)
    listed = Path(os.environ["USHER_BENCH_RENEW"])
    renewing: dict[str, asyncio.Task[None]] = {}
    async with (
        AsyncLedger(common) as store,
        aiohttp.ClientSession() as http,
        asyncio.TaskGroup() as tasks,
    ):
        jobs = PretendedJobs(store, http)
        direct = DirectJobs(IDENTITY.agent_server_id, jobs, store, common)
        tasks.create_task(_report(store))
        tasks.create_task(direct.run())
        while True:
            ids = listed.read_text().split() if listed.exists() else []
            for dispatch_id in ids:
                if dispatch_id not in renewing:
                    renewing[dispatch_id] = tasks.create_task(
                        _renew(store, dispatch_id, jobs.ids.get(dispatch_id, ""))
                    )
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main())
