"""Make a livekit-agents program one of Usher's, by `rtc_session` or by `agent_server`.

Nothing is opened and no setting is read before the server starts: the job processes import the
program too, and so do its tests.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Awaitable, Callable
from typing import Any, overload

from livekit.agents import AgentServer, JobContext, JobRequest, WorkerOptions

from worker_agent import session
from worker_agent.attachment import Attachment
from worker_agent.livekit_workarounds import agent_server as server_state
from worker_agent.livekit_workarounds import loop_watchdog
from worker_agent.prewarm import set_up
from worker_agent.program_on_request import OnRequest
from worker_agent.session import EntryPoint


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
    """Do what livekit-agents' `server.rtc_session` does, with Usher's filter, claim and fence.

    It is used in the same way and takes the same options. The program's own `on_request` is asked
    first; what it accepts is still claimed, or refused, by our filter. The server reports used
    slots / slots (`USHER_AGENT_SLOTS`) as its load. With `own_load` it keeps its own `load_fnc` and
    `load_threshold` (by default the CPU's load, and 0.7 of it): for agents that weigh differently.
    Usher then sends it no more than they let it take.

    When the server starts, it reads `REDIS_URL` and the `USHER_` variables of `GuardSettings` and
    `CommonSettings`, and ends with one line when one is missing or wrong.
    """

    def register(entrypoint: EntryPoint) -> EntryPoint:
        guarded = Guarded(entrypoint)
        attachment = Attachment(server, on_request, own_load=own_load)
        server.rtc_session(guarded, on_request=attachment.on_request, **options)
        _prepare(server)
        return guarded

    return register if func is None else register(func)


def agent_server(options: WorkerOptions, *, own_load: bool = False) -> AgentServer:
    """Make the server of a program's `WorkerOptions`, with Usher's filter, claim and fence.

    For programs of before `AgentServer`: `cli.run_app(agent_server(WorkerOptions(...)))`. Its
    `request_fnc` is asked first, as an `on_request` is; `own_load` as for `rtc_session`.
    """
    attached: list[Attachment] = []  # made from the server, which is made with it

    async def on_request(request: JobRequest) -> None:
        await attached[0].on_request(request)

    guarded = Guarded(options.entrypoint_fnc)
    server = AgentServer.from_server_options(
        dataclasses.replace(options, entrypoint_fnc=guarded, request_fnc=on_request)
    )
    attached.append(Attachment(server, options.request_fnc, own_load=own_load))
    _prepare(server)
    return server


def _prepare(server: AgentServer) -> None:
    server.setup_fnc = functools.partial(set_up, server.setup_fnc)
    # Now: what livekit-agents starts a job's process from takes its environment with it.
    loop_watchdog.restrain(server_state.executor(server))


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
