"""Make a livekit-agents program one of Usher's, by `rtc_session` or by `agent_server`.

Nothing is opened and no setting is read before the server starts: the job processes import the
program too, and so do its tests.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import math
import os
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any, overload

from livekit.agents import (
    AgentServer,
    JobContext,
    JobExecutorType,
    JobRequest,
    WorkerOptions,
)

from dispatcher import garbage, redaction, tracing
from dispatcher.errors import ConfigurationError
from dispatcher.guarding import Guard, Work
from dispatcher.redis_cluster import refuse_cluster
from dispatcher.settings import CommonSettings, load
from dispatcher.store import AsyncLedger
from worker_agent import session
from worker_agent.program_on_request import OnRequest, ask_program
from worker_agent.livekit_workarounds.loop_watchdog import restrain
from worker_agent.decisions import AgentServerIdentity
from worker_agent.prewarm import Prepared, prepare
from worker_agent.processes import Processes
from worker_agent.load_report import Reporter
from worker_agent.request_filter import RequestFilter
from worker_agent.session import EntryPoint
from worker_agent.settings import GuardSettings
from worker_agent.summary import Summaries

logger = logging.getLogger(__name__)


@overload
def rtc_session(
    server: AgentServer,
    func: EntryPoint,
    *,
    on_request: OnRequest | None = None,
    own_load: bool = False,
    **options: Any,
) -> EntryPoint: ...


@overload
def rtc_session(
    server: AgentServer,
    *,
    on_request: OnRequest | None = None,
    own_load: bool = False,
    **options: Any,
) -> Callable[[EntryPoint], EntryPoint]: ...


def rtc_session(
    server: AgentServer,
    func: EntryPoint | None = None,
    *,
    on_request: OnRequest | None = None,
    own_load: bool = False,
    **options: Any,
) -> EntryPoint | Callable[[EntryPoint], EntryPoint]:
    """livekit-agents' `server.rtc_session`, with Usher's filter, claim, fence and reports.

    Used as that is: as a decorator, or called with the function. It takes the same options, passed
    on as they are: `agent_name`, `type`, `on_session_end` and so on. An `on_request` of the
    program's own is asked first; what it accepts is still claimed, or refused, by our filter. The
    server reports used slots / slots (`USHER_AGENT_SLOTS`) as its load, in place of its own
    `load_fnc` and `load_threshold`. With `own_load` it keeps those (by default the CPU's load, and
    0.7 of it): for agents that weigh differently. Usher then sends it no more than they let it
    take.

    When the server starts, it reads `REDIS_URL` and the `USHER_` variables of `GuardSettings` and
    `CommonSettings`, and ends with one line when one is missing or wrong.
    """

    def register(entrypoint: EntryPoint) -> EntryPoint:
        guarded = Guarded(entrypoint)
        attachment = _Attachment(server, on_request, own_load=own_load)
        server.rtc_session(guarded, on_request=attachment.on_request, **options)
        _prepare(server)
        return guarded

    return register if func is None else register(func)


def agent_server(options: WorkerOptions, *, own_load: bool = False) -> AgentServer:
    """livekit-agents' server of a program's `WorkerOptions`, with Usher's filter, claim and fence.

    For programs of before `AgentServer`: `cli.run_app(agent_server(WorkerOptions(...)))`. Its
    `request_fnc` is asked first, as an `on_request` is; `own_load` as for `rtc_session`.
    """
    attached: list[_Attachment] = []  # made from the server, which is made with it

    async def on_request(request: JobRequest) -> None:
        await attached[0].on_request(request)

    guarded = Guarded(options.entrypoint_fnc)
    server = AgentServer.from_server_options(
        dataclasses.replace(options, entrypoint_fnc=guarded, request_fnc=on_request)
    )
    attached.append(_Attachment(server, options.request_fnc, own_load=own_load))
    _prepare(server)
    return server


def _prepare(server: AgentServer) -> None:
    server.setup_fnc = Prepared(server.setup_fnc)
    # Now: what livekit-agents starts a job's process from takes its environment with it.
    restrain(server._job_executor_type)


class Guarded:
    """An entry point behind the fence. livekit-agents pickles it for each of its job processes."""

    def __init__(self, entrypoint: EntryPoint) -> None:
        functools.update_wrapper(self, entrypoint)
        self._entrypoint = entrypoint

    def __call__(self, ctx: JobContext) -> Awaitable[None]:
        return session.run(self._entrypoint, ctx)

    def __reduce__(self) -> str | tuple[type[Guarded], tuple[EntryPoint]]:
        # As a decorator's result it stands under the function's own name; otherwise the function
        # does, and this is made anew around it. A `functools.partial`, or an object that is called,
        # has no such name.
        name: str = getattr(self._entrypoint, "__qualname__", "")
        module = getattr(self._entrypoint, "__module__", "")
        found: object = sys.modules.get(module) if name else None
        for part in name.split("."):
            found = getattr(found, part, None)
        return name if found is self else (Guarded, (self._entrypoint,))


class _Attachment:
    """What Usher adds to one agent server, from its start to its end."""

    def __init__(self, server: AgentServer, own: OnRequest | None, *, own_load: bool) -> None:
        self._server = server
        self._own = own
        self._own_load = own_load
        self._filter: RequestFilter | None = None
        self._reporter: Reporter | None = None
        self._reporting: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._summing_up: asyncio.Task[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._replaced_load_fnc = None if own_load else server.load_fnc
        if not own_load:
            server.load_fnc = self._load
            # Never unavailable for load: livekit-agents would then answer "not available" by
            # itself, and nobody would learn why. The request filter refuses when every slot is
            # taken.
            server.update_options(load_threshold=math.inf)
        server.on("worker_started", self._started)
        server.on("worker_registered", self._registered)

    async def on_request(self, request: JobRequest) -> None:
        """livekit-agents' `on_request`."""
        if self._filter is None:
            await request.reject(terminate=False)  # a setting is missing: the server is ending
        elif self._own is None:
            await self._filter(request)
        else:
            await ask_program(self._own, self._filter, request)

    def _load(self) -> float:
        return 0.0 if self._reporter is None else self._reporter.load()

    def _registered(self, *_: object) -> None:
        if self._reporter is not None:
            self._reporter.registered()

    def _started(self) -> None:
        """Called in the server's loop before it registers at LiveKit."""
        if self._server._conn_task is None:
            return  # it will not register (`console`), so nobody shall count on it
        # What it cannot connect to, livekit-agents logs with the bearer token of its request.
        redaction.guard(logging.getLogger())
        try:
            settings, common = load(GuardSettings), load(CommonSettings)
            identity = identify(settings, self._server._agent_name)
            refuse_cluster(common)
        except ConfigurationError as error:
            self._ending = asyncio.create_task(self._end(error), name="ending")
            # Or asyncio would add a traceback: that nobody has asked for the task's exception.
            self._ending.add_done_callback(asyncio.Task.exception)
            return
        if self._server._job_executor_type is JobExecutorType.THREAD:
            prepare()  # now, not by whichever job's thread comes first
        else:
            garbage.keep()
        if self._replaced_load_fnc is not None:
            logger.warning("the program's load_fnc is not used: Usher reports used slots / slots")
        tracing.start("usher-agent")
        store = AsyncLedger(common)
        self._filter = RequestFilter(identity, store, retention_s=common.retention_s)
        self._reporter = Reporter(
            identity,
            self._server,
            self._filter,
            store,
            period_s=settings.report_s,
            own_load=self._own_load,
            one_process=self._server._job_executor_type is JobExecutorType.THREAD,
            alive_file=common.alive_file,
        )
        self._filter.changed = self._reporter.changed
        Processes(self._server, self._filter, store).watch()
        self._reporting = asyncio.create_task(_report(self._reporter, store), name="reporter")
        summaries = Summaries(identity, self._filter.metrics)
        guard = Guard(store)
        summing_up = functools.partial(summaries.run, every_s=settings.summary_every_s)
        self._summing_up = asyncio.create_task(
            guard.keep(Work.SUM_UP, summing_up), name="summaries"
        )
        if self._own_load:
            self._watching = asyncio.create_task(
                guard.keep(Work.WATCH_LOAD, self._reporter.watch), name="load-watch"
            )

    async def _end(self, error: ConfigurationError) -> None:
        """End the program with one line on standard error and exit code 1, and its processes."""
        await self._server.aclose()
        raise SystemExit(str(error))


async def _report(reporter: Reporter, store: AsyncLedger) -> None:
    """Report until the loop ends: whoever runs it cancels what is left and waits for it."""
    async with store:
        await reporter.run()


def identify(settings: GuardSettings, agent_name: str) -> AgentServerIdentity:
    """Who this process is; LiveKit's own worker id changes with every registration.

    Raises:
        ConfigurationError: the agent has no name.
    """
    if not agent_name:
        raise ConfigurationError(
            "Usher cannot start: give rtc_session an agent_name, or set LIVEKIT_AGENT_NAME; an "
            "agent without a name is sent into every room by LiveKit, and nobody can ask for it"
        )
    return AgentServerIdentity(
        agent_server_id=f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}",
        agent_name=agent_name,
        container=settings.container,
        client_id=settings.client_id,
        slots=settings.slots,
        deployment=settings.deployment,
    )
