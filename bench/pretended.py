"""A pretended agent server for dispatch-only measurements: `python -m bench.pretended`.

It reports more free slots than any measurement uses, so that the dispatcher takes its ordinary way.
It renews the leases of the dispatches in `USHER_BENCH_RENEW` (a file of ids, one a line), as the
agents of so many live sessions would.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from pathlib import Path

from bench.contenders import AGENT_NAME
from dispatcher.domain.models import AgentServerReport, DispatchRef
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import leases, reports
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.settings import CommonSettings, load

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
)


async def _report(store: AsyncLedger) -> None:
    while True:
        with contextlib.suppress(LedgerUnavailable):
            await store.run(reports.report_agent_server(REPORT, ttl_s=6))
        await asyncio.sleep(2)


async def _renew(store: AsyncLedger, dispatch_id: str) -> None:
    ref = DispatchRef(
        dispatch_id=dispatch_id, client_id="", room_name="", agent_name="", generation=1
    )
    step = leases.renew(ref, job_id="", people=1, abandon_after_s=300, deserted_after_s=300)
    while True:
        with contextlib.suppress(LedgerUnavailable):
            await store.run(step)
        await asyncio.sleep(leases.RENEW_S)


async def main() -> None:
    """Report and renew for ever."""
    listed = Path(os.environ["USHER_BENCH_RENEW"])
    renewing: dict[str, asyncio.Task[None]] = {}
    async with AsyncLedger(load(CommonSettings)) as store, asyncio.TaskGroup() as tasks:
        tasks.create_task(_report(store))
        while True:
            ids = listed.read_text().split() if listed.exists() else []
            for dispatch_id in ids:
                if dispatch_id not in renewing:
                    renewing[dispatch_id] = tasks.create_task(_renew(store, dispatch_id))
            await asyncio.sleep(0.1)


if __name__ == "__main__":
    asyncio.run(main())
