"""Usher's additions to one agent server: the request filter, the load report, the summaries."""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import os
import secrets
import socket
from collections.abc import Coroutine
from typing import Any

from livekit.agents import AgentServer, JobExecutorType, JobRequest

from dispatcher import start_up
from dispatcher.connections.redis_cluster import refuse_cluster
from dispatcher.errors import ConfigurationError
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.guarding import Guard, Work
from dispatcher.observability import redaction, tracing
from dispatcher.settings import CommonSettings, load
from worker_agent.decisions import AgentServerIdentity
from worker_agent.direct_jobs import DirectJobs
from worker_agent.livekit_workarounds import agent_server
from worker_agent.livekit_workarounds.placed_jobs import PlacedJobs
from worker_agent.load_report import Reporter, ReportOptions
from worker_agent.prewarm import prepare
from worker_agent.processes import Processes
from worker_agent.program_on_request import OnRequest, ask_program
from worker_agent.request_filter import RequestFilter
from worker_agent.settings import GuardSettings
from worker_agent.summary import Summaries

logger = logging.getLogger(__name__)


class Attachment:
    """Usher's part of one agent server, from the server's start to its end.

    Nothing is opened and no setting is read before the server starts.
    """

    def __init__(self, server: AgentServer, own: OnRequest | None, *, own_load: bool) -> None:
        """`own` is the program's `on_request`; with `own_load` its load report stays, too."""
        self._server = server
        self._own = own
        self._own_load = own_load
        self._filter: RequestFilter | None = None
        self._reporter: Reporter | None = None
        self._tasks: list[asyncio.Task[None]] = []  # or the loop would hold them only weakly
        self._placed = PlacedJobs(server)
        self._replaced_load_fnc = None if own_load else server.load_fnc
        if not own_load:
            server.load_fnc = self._load
            # Over its threshold livekit-agents would answer "not available" by itself, and the
            # caller would not learn why. The request filter refuses when every slot is taken.
            server.update_options(load_threshold=math.inf)
        server.on("worker_started", self._started)

    async def on_request(self, request: JobRequest) -> None:
        """Answer an offer, as livekit-agents' `on_request` does."""
        if self._filter is None:
            await request.reject(terminate=False)  # a setting is missing: the server is ending
        elif self._own is None:
            await self._filter(request)
        else:
            await ask_program(self._own, self._filter, request)

    def _load(self) -> float:
        return 0.0 if self._reporter is None else self._reporter.load()

    def _started(self) -> None:
        """Begin; called in the server's loop before it registers at LiveKit."""
        if not agent_server.will_register(self._server):
            return  # LiveKit sends it no job (`console`), so Usher must not count on it
        # When livekit-agents cannot connect it logs the bearer token of its request.
        redaction.guard(logging.getLogger())
        try:
            settings, common = load(GuardSettings), load(CommonSettings)
            identity = identify(settings, agent_server.agent_name(self._server))
            refuse_cluster(common.redis_url.get_secret_value(), timeout_s=common.redis_timeout_s)
        except ConfigurationError as error:
            ending = self._spawn("ending", self._end(error))
            # Otherwise asyncio logs a traceback: the task's exception was never retrieved.
            ending.add_done_callback(asyncio.Task.exception)
            return
        in_threads = agent_server.executor(self._server) is JobExecutorType.THREAD
        if in_threads:
            prepare()  # now, not by the thread of the first job
        else:
            start_up.freeze()
        if self._replaced_load_fnc is not None:
            logger.warning("the program's load_fnc is not used: Usher reports used slots / slots")
        tracing.start("usher-agent")
        options = ReportOptions(
            period_s=settings.report_s,
            own_load=self._own_load,
            one_process=in_threads,
            alive_file=common.alive_file,
            direct=self._placed.possible,
        )
        self._attach(identity, common, options, summary_every_s=settings.summary_every_s)

    def _attach(
        self,
        identity: AgentServerIdentity,
        common: CommonSettings,
        options: ReportOptions,
        *,
        summary_every_s: float,
    ) -> None:
        store = AsyncLedger(common)
        self._filter = RequestFilter(identity, store)
        self._reporter = Reporter(identity, self._server, self._filter, store, options)
        self._filter.changed = self._reporter.changed
        self._server.on("worker_registered", self._reporter.registered)
        Processes(self._server, self._filter, store).watch()
        self._spawn("reporter", _report(self._reporter, store))
        if self._placed.possible:
            direct = DirectJobs(identity.agent_server_id, self._placed, store, common)
            self._spawn("direct-jobs", direct.run())
        guard = Guard(store)
        summaries = Summaries(identity, self._filter.metrics)
        sum_up = functools.partial(summaries.run, every_s=summary_every_s)
        self._spawn("summaries", guard.keep(Work.SUM_UP, sum_up))
        if self._own_load:
            self._spawn("load-watch", guard.keep(Work.WATCH_LOAD, self._reporter.watch))

    def _spawn(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        self._tasks.append(task)
        return task

    async def _end(self, error: ConfigurationError) -> None:
        """End the program with one line on standard error and exit code 1, and its processes."""
        await self._server.aclose()
        raise SystemExit(str(error))


async def _report(reporter: Reporter, store: AsyncLedger) -> None:
    """Report until the loop ends: `asyncio.run` cancels what is left and waits for it."""
    async with store:
        await reporter.run()


def identify(settings: GuardSettings, agent_name: str) -> AgentServerIdentity:
    """Make the identity of this process; LiveKit's own worker id changes with every registration.

    Raises:
        ConfigurationError: the agent has no name.
    """
    if not agent_name:
        raise ConfigurationError(
            "Usher cannot start: give rtc_session an agent_name, or set LIVEKIT_AGENT_NAME; an "
            "agent without a name is sent into every room by LiveKit, and cannot be asked for"
        )
    return AgentServerIdentity(
        agent_server_id=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        agent_name=agent_name,
        container=settings.container,
        client_id=settings.client_id,
        slots=settings.slots,
        deployment=settings.deployment,
    )
