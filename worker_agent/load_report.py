"""What do the others know of this agent server?

Every few seconds it tells Redis its name, container, client, slots and load. Whoever wants to
dispatch reads from that whether anybody could take the job.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time

from livekit.agents import AgentServer
from livekit.agents.utils.hw import get_cpu_monitor
from livekit.agents.worker import UPDATE_LOAD_INTERVAL, ServerEnvOption
from livekit.protocol.agent import WorkerStatus

from dispatcher import reports
from dispatcher.alive import AliveFile
from dispatcher.errors import LedgerUnavailable
from dispatcher.guarding import Guard, Work
from dispatcher.models import AgentServerReport
from dispatcher.store import AsyncLedger
from worker_agent.join_limit import AT_ONCE, joining
from worker_agent.decisions import AgentServerIdentity
from worker_agent.request_filter import RequestFilter

logger = logging.getLogger(__name__)

# LiveKit drops a job without a word once the agent servers together report a load of 0.7 or more
# (`agents.target_load`, pkg/service/agentservice.go `JobRequestAffinity`). What we report to
# LiveKit stays below that up to the last slot, so that a full agent server is still asked, and its
# filter can say why not.
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
_ROUNDING = 1e-6


def livekit_load(*, used_slots: int, slots: int) -> float:
    """The load to report to LiveKit: used slots / slots, scaled to stay below its target load."""
    return min(1.0, used_slots / slots) * _MAX_REPORTED_LOAD


def livekit_agents_takes(server: AgentServer) -> int | None:
    """How many jobs livekit-agents accepts now by the program's own load report; None: any number.

    The sum is its own (`AgentServer._get_effective_load`): a job weighs as much as those that run
    do on average, and before the first one as much as the threshold over its idle processes. What
    it answers no to, LiveKit drops. It tells LiveKit only every 2.5 s whether it is full, and a
    full one is asked nothing.
    """
    threshold = ServerEnvOption.getvalue(server._load_threshold, server._devmode)
    if math.isinf(threshold):
        return None
    left = threshold - server._get_effective_load()
    if server._previous_status == WorkerStatus.WS_FULL or left <= 0:
        return 0
    jobs = len(server.active_jobs)
    each = server._worker_load / jobs if jobs else threshold / _idle_processes(server)
    return math.ceil(left / each - _ROUNDING) if each > 0 else None


async def tell_that_it_is_free(server: AgentServer) -> None:
    """Tell LiveKit at once that a full agent server is so no longer.

    livekit-agents tells it every 2.5 s; until then LiveKit asks nothing of a server that would
    accept.
    """
    was_full = server._previous_status == WorkerStatus.WS_FULL
    if was_full and server._is_available() and not server._connecting:
        await server._update_worker_status()


def _idle_processes(server: AgentServer) -> int:
    idle: int = ServerEnvOption.getvalue(server._num_idle_processes, server._devmode)
    return max(idle, 1)


class Reporter:
    """Keeps this agent server's report in Redis fresh."""

    def __init__(
        self,
        identity: AgentServerIdentity,
        server: AgentServer,
        request_filter: RequestFilter,
        store: AsyncLedger,
        *,
        period_s: float,
        own_load: bool = False,
        one_process: bool = False,
        alive_file: str = "",
    ) -> None:
        self._identity = identity
        self._file = AliveFile(alive_file)
        self._server = server
        self._filter = request_filter
        request_filter.active_jobs = lambda: [info.job.id for info in server.active_jobs]
        self._store = store
        self._guard = Guard(store)
        self._period_s = period_s
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._urgent = asyncio.Event()
        self._own_load = own_load
        self._one_process = one_process
        self._reported: tuple[int, int | None, int | None] = (0, None, None)
        self._away_since: float | None = None
        self._measured_at = 0.0
        self._slots_then = 0
        processors = get_cpu_monitor().cpu_count()
        self._each_measurement = math.ceil(processors * UPDATE_LOAD_INTERVAL / _JOIN_CPU_S)
        if one_process:
            joining.changed = self._one_has_joined

    def registered(self, *_: object) -> None:
        """livekit-agents' `worker_registered` event: who waits for an agent shall know at once."""
        self._urgent.set()

    def changed(self) -> None:
        """Slots have been taken or have become free."""
        self._news.set()

    def load(self) -> float:
        """livekit-agents' `load_fnc`: called before every offer and twice a second, in a thread."""
        self._look()
        return livekit_load(used_slots=self._filter.used_slots, slots=self._identity.slots)

    async def watch(self) -> None:
        """Look until cancelled: what `load` does where it is the load report."""
        while True:
            await tell_that_it_is_free(self._server)
            self._look()
            await asyncio.sleep(_LOOK_EVERY_S)

    def _look(self) -> None:
        if self._figures() != self._reported:
            self._have_reported()

    def _one_has_joined(self) -> None:
        """Called from its thread. Somebody may wait for that, but only when few can start."""
        starts = self._reported[2]
        if starts is not None and starts < AT_ONCE:
            self._have_reported()

    def _have_reported(self) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed: nobody reports
            self._loop.call_soon_threadsafe(self._news.set)

    def _figures(self) -> tuple[int, int | None, int | None]:
        used = self._filter.used_slots
        if not self._one_process:
            return used, self._takes(), None
        starts = self._filter.may_begin
        return used, self._takes(), starts if starts < self._identity.slots - used else None

    def _takes(self) -> int | None:
        """How many more may be sent; with the program's own load report a few per measurement.

        livekit-agents measures twice a second and averages over 2.5 s, so what starts now weighs
        later. Sent as fast as it accepts, 40 jobs kept it over its threshold for seconds; so no
        more than its processors can have joined until the next measurement.
        """
        takes = livekit_agents_takes(self._server) if self._own_load else None
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
                    await self._report(ttl_s=self._period_s * _LOST_AFTER_PERIODS)
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._urgent.wait(), min(_GAP_S, self._period_s))
                    continue
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._any_news(), self._period_s)
        finally:
            await self._report(ttl_s=0)

    async def _any_news(self) -> None:
        waits = [asyncio.create_task(event.wait()) for event in (self._news, self._urgent)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def _report(self, *, ttl_s: float) -> None:
        identity = self._identity
        self._reported = used, takes, starts = self._figures()
        report = AgentServerReport(
            agent_server_id=identity.agent_server_id,
            agent_name=identity.agent_name,
            container=identity.container,
            client_id=identity.client_id,
            slots=identity.slots,
            used_slots=used,
            load=round(used / identity.slots, 3),
            draining=self._server.draining,
            # livekit-agents tells nobody when it loses LiveKit; this is how it knows itself.
            registered=not self._server._connecting,
            takes=takes,
            starts=starts,
            cannot_start=self._filter.cannot_start,
            deployment=identity.deployment,
        )
        asked_at = time.monotonic()
        try:
            now_ms = await self._store.run(reports.report_agent_server(report, ttl_s=ttl_s))
        except LedgerUnavailable as error:
            self._redis_is_away(asked_at, str(error))
            return
        self._redis_answers(asked_at)
        self._filter.clock.heard(now_ms, asked_at=asked_at)
        with contextlib.suppress(LedgerUnavailable):
            await self._filter.metrics.flush()
            await self._filter.tenants.refresh()
            if report.online:
                self._file.touch()  # it can be sent sessions

    def _redis_is_away(self, since: float, error: str) -> None:
        """Say once that nobody hears of this agent server, so that its log tells why."""
        if self._away_since is None:
            self._away_since = since
            logger.error(
                "cannot report to Redis: Usher sends this agent server no session until it can",
                extra={"agent_server_id": self._identity.agent_server_id, "error": error},
            )

    def _redis_answers(self, at: float) -> None:
        if self._away_since is not None:
            logger.warning("Redis answers again", extra={"away_s": round(at - self._away_since, 1)})
            self._away_since = None
