"""Report an agent server to Redis: its name, container, client, slots and load.

It does so every few seconds, and sooner when something has changed. The dispatcher reads from the
reports whether there is an agent server that could take a job.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from dataclasses import asdict, dataclass

from livekit.agents import AgentServer
from livekit.agents.utils.hw import get_cpu_monitor
from livekit.agents.worker import UPDATE_LOAD_INTERVAL

from dispatcher.domain.models import AgentServerReport
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import reports
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.guarding import Guard, Work
from dispatcher.observability.liveness import AliveFile
from worker_agent.decisions import AgentServerIdentity
from worker_agent.join_limit import AT_ONCE, joining
from worker_agent.livekit_workarounds import agent_server, own_load
from worker_agent.request_filter import RequestFilter

logger = logging.getLogger(__name__)

# LiveKit drops a job without a word once the agent servers together report a load of 0.7 or more
# (`agents.target_load`, pkg/service/agentservice.go `JobRequestAffinity`). What is reported stays
# below that, so that a full agent server is still asked, and its filter can say why not.
LIVEKIT_TARGET_LOAD = 0.7
_MAX_REPORTED_LOAD = 0.95 * LIVEKIT_TARGET_LOAD
_LOST_AFTER_PERIODS = 3
# Between two reports, however much happens.
_GAP_S = 0.2
# How often the jobs of an agent server that keeps its own load report are counted.
_LOOK_EVERY_S = 0.1
# Of a processor, for an agent to join in a burst (`python -m tests.measure.agent_cost`, and more
# where many do at once).
_JOIN_CPU_S = 0.1


def livekit_load(*, used_slots: int, slots: int) -> float:
    """Compute the load to report to LiveKit: used slots / slots, kept below its target load."""
    return min(1.0, used_slots / slots) * _MAX_REPORTED_LOAD


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """The options of an agent server's report.

    `own_load`: LiveKit gets the program's own load report, which bounds what Usher may send.
    `one_process`: all agents are threads of this process, so few may be joining at a time.
    `direct`: it takes jobs from Usher itself.
    `alive_file`: touched after each report with which it can be sent sessions; empty: none.
    """

    period_s: float
    own_load: bool = False
    one_process: bool = False
    alive_file: str = ""
    direct: bool = False


class Reporter:
    """Keeps this agent server's report in Redis fresh."""

    def __init__(
        self,
        identity: AgentServerIdentity,
        server: AgentServer,
        request_filter: RequestFilter,
        store: AsyncLedger,
        options: ReportOptions,
    ) -> None:
        self._identity = identity
        self._options = options
        self._file = AliveFile(options.alive_file)
        self._server = server
        self._filter = request_filter
        request_filter.active_jobs = lambda: [info.job.id for info in server.active_jobs]
        self._store = store
        self._guard = Guard(store)
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        self._reported: tuple[int, int | None, int | None] = (0, None, None)
        self._away_since: float | None = None
        self._measured_at = 0.0
        self._slots_then = 0
        processors = get_cpu_monitor().cpu_count()
        self._each_measurement = math.ceil(processors * UPDATE_LOAD_INTERVAL / _JOIN_CPU_S)
        if options.one_process:
            joining.changed = self._one_has_joined

    def registered(self, *_: object) -> None:
        """Report at once, for the sessions that wait: livekit-agents' event `worker_registered`."""
        self._urgent.set()
        self._news.set()

    def changed(self) -> None:
        """Report soon: slots have been taken or have become free. Called from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, its reports are over
            self._loop.call_soon_threadsafe(self._news.set)

    def load(self) -> float:
        """livekit-agents' `load_fnc`: called before every offer and twice a second, in a thread."""
        self._look()
        return livekit_load(used_slots=self._filter.used_slots, slots=self._identity.slots)

    async def watch(self) -> None:
        """Look until cancelled: what `load` does where it is the load report."""
        while True:
            await own_load.tell_that_it_is_free(self._server)
            self._look()
            await asyncio.sleep(_LOOK_EVERY_S)

    def _look(self) -> None:
        if self._figures() != self._reported:
            self.changed()

    def _one_has_joined(self) -> None:
        """Called from the job's thread. Sessions wait for that only when few can start."""
        starts = self._reported[2]
        if starts is not None and starts < AT_ONCE:
            self.changed()

    def _figures(self) -> tuple[int, int | None, int | None]:
        used = self._filter.used_slots
        if not self._options.one_process:
            return used, self._takes(), None
        starts = joining.room_for(self._filter.jobs())
        return used, self._takes(), starts if starts < self._identity.slots - used else None

    def _takes(self) -> int | None:
        """Return how many more may be sent; by the program's own load report a few per measurement.

        What starts now weighs later. So no more are sent than its processors can have joined until
        the next measurement (docs/decisions/0025-rtc-session.md).
        """
        takes = own_load.accepts(self._server) if self._options.own_load else None
        if takes is None:
            return None
        now = time.monotonic()
        if now - self._measured_at >= UPDATE_LOAD_INTERVAL:
            self._measured_at, self._slots_then = now, self._filter.used_slots
        since = self._filter.used_slots - self._slots_then
        return max(0, min(takes, self._each_measurement - since))

    async def run(self) -> None:
        """Report until cancelled, then take the report away."""
        try:
            while True:
                self._news.clear()  # before the report: what happens meanwhile wants another one
                self._urgent.clear()
                async with self._guard.one(Work.REPORT_AGENT_SERVER):
                    await self._report(ttl_s=self._options.period_s * _LOST_AFTER_PERIODS)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._urgent.wait(), min(_GAP_S, self._options.period_s))
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._news.wait(), self._options.period_s)
        finally:
            await self._report(ttl_s=0)

    async def _report(self, *, ttl_s: float) -> None:
        identity = self._identity
        self._reported = used, takes, starts = self._figures()
        report = AgentServerReport(
            **asdict(identity),
            used_slots=used,
            load=round(used / identity.slots, 3),
            draining=self._server.draining,
            registered=agent_server.is_connected(self._server),
            takes=takes,
            starts=starts,
            cannot_start=self._filter.cannot_start,
            direct=self._options.direct,
        )
        asked_at = time.monotonic()
        try:
            now_ms = await self._store.run(reports.report_agent_server(report, ttl_s=ttl_s))
        except LedgerUnavailable as error:
            if self._away_since is None:
                self._away_since = asked_at
                logger.error(
                    "cannot report to Redis: Usher sends this agent server no session until it can",
                    extra={"agent_server_id": identity.agent_server_id, "error": str(error)},
                )
            return
        if self._away_since is not None:
            away_s = round(asked_at - self._away_since, 1)
            logger.warning("Redis answers again", extra={"away_s": away_s})
            self._away_since = None
        self._filter.clock.heard(now_ms, asked_at=asked_at)
        with contextlib.suppress(LedgerUnavailable):
            await self._filter.metrics.flush()
            await self._filter.tenants.refresh()
            if report.online:
                self._file.touch()  # it can be sent sessions
