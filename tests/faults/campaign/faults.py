"""Carrying out a fault: which process or room it hits, and the signal or call that it is.

What kills nothing is `trouble.py`'s.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass

import aiohttp
from livekit import api

from tests.support.stacks import RunningStack

from .journal import Journal
from .plan import NEIGHBOURS, Fault, Kind
from .trouble import KINDS as TROUBLE
from .trouble import Trouble
from .watching import Watch, livekit_api

_PROGRAMS = {
    Kind.WEB: "web",
    Kind.WEB_WORKER: "web",
    Kind.DISPATCH: "dispatch",
    Kind.VERIFY: "verify",
    Kind.BEAT: "beat",
    Kind.AGENT: "agent",
    Kind.REDIS: "redis",
    Kind.LIVEKIT: "livekit",
    Kind.FREEZE_AGENT: "agent",
    Kind.DRAIN: "agent",
}
# The agent of the stack's client, by the name that its settings give by default.
_AGENT_NAME = "session-agent-rag"
DRAIN_S = 3  # shorter than most sessions
_WORKERS = ("dispatch", "verify")
_TRIES = 20
_TRIES_TO_DRAIN = 60
_TRY_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class _Target:
    program: str
    pids: tuple[int, ...]
    room: str = ""


class Faults:
    """Carries out a plan's faults on one stack.

    `sessions` names the rooms in which an agent answers a person just now.
    """

    def __init__(
        self,
        stack: RunningStack,
        journal: Journal,
        watch: Watch,
        sessions: Callable[[], list[str]],
        trouble: Trouble,
    ) -> None:
        self._stack = stack
        self._journal = journal
        self._watch = watch
        self._sessions = sessions
        self._trouble = trouble
        self._number = 0
        self._draining: set[int] = set()

    async def inject(self, fault: Fault) -> None:
        """Do it; where there is no such process or room just now (killed before), wait for one."""
        if fault.kind in TROUBLE:
            await self._trouble.inject(fault, lambda: self._note_trouble(fault))
            return
        for _ in range(_TRIES_TO_DRAIN if fault.kind is Kind.DRAIN else _TRIES):
            if fault.kind is Kind.FOREIGN:
                if await self._dispatch_past_usher(fault):
                    return
            elif target := await asyncio.to_thread(self._target, fault):
                await self._signal(fault, target)
                return
            await asyncio.sleep(_TRY_EVERY_S)
        self._journal.write("no_target", kind=fault.kind)

    async def _signal(self, fault: Fault, target: _Target) -> None:
        frozen = fault.kind in (Kind.FREEZE_WORKER, Kind.FREEZE_AGENT, Kind.FREEZE_JOB)
        drained = fault.kind is Kind.DRAIN
        hold_s = fault.hold_s if frozen else DRAIN_S if drained else 0.0
        name = "STOP" if frozen else "TERM" if drained else "KILL"
        at = self._note(fault, target, name, hold_s)
        if drained:
            self._draining.add(target.pids[0])
            _send(signal.SIGTERM, target.pids[:1])
            return
        if not frozen:
            self._watch.liveness.killed(target.pids, at)
            _send(signal.SIGKILL, target.pids)
            return
        _send(signal.SIGSTOP, target.pids)
        try:
            await asyncio.sleep(fault.hold_s)
        finally:
            _send(signal.SIGCONT, target.pids)

    async def _dispatch_past_usher(self, fault: Fault) -> bool:
        """As another backend does that uses LiveKit's API for a room of ours."""
        rooms = self._sessions()
        if not rooms:
            return False
        room = rooms[int(fault.pick * len(rooms))]
        request = api.CreateAgentDispatchRequest(agent_name=_AGENT_NAME, room=room)
        self._note(fault, _Target(program="livekit", pids=(), room=room), "DISPATCH", 0.0)
        with suppress(api.TwirpError, aiohttp.ClientError, asyncio.TimeoutError):
            async with livekit_api(self._stack) as livekit:
                await livekit.agent_dispatch.create_dispatch(request)
        return True

    def _note_trouble(self, fault: Fault) -> int:
        tenant = fault.kind in NEIGHBOURS
        program = "gateway" if fault.kind is Kind.GARBAGE else "web" if tenant else "redis"
        self._note(fault, _Target(program=program, pids=()), fault.how or "BURST", fault.hold_s)
        return self._number

    def _note(self, fault: Fault, target: _Target, name: str, hold_s: float) -> float:
        self._number += 1
        return self._journal.write(
            "fault",
            fault=self._number,
            kind=fault.kind,
            program=target.program,
            pids=target.pids,
            room=target.room,
            signal=name,
            hold_s=round(hold_s, 2),
        )

    def _target(self, fault: Fault) -> _Target | None:
        if fault.kind is Kind.DRAIN and self._one_drains():
            return None
        if fault.kind in (Kind.JOB, Kind.FREEZE_JOB):
            return self._job(fault.pick)
        names = _WORKERS if fault.kind is Kind.FREEZE_WORKER else (_PROGRAMS[fault.kind],)
        running = sorted(
            name
            for name, program in self._stack.programs().items()
            if name.rstrip("0123456789") in names and program.state == "RUNNING"
        )
        if not running:
            return None
        name = running[int(fault.pick * len(running))]
        pids = self._stack.pids(name)
        if fault.kind is Kind.WEB_WORKER:
            pids = pids[1:][int(fault.pick * 1000) % 2 :][:1]
        elif fault.kind not in (Kind.AGENT, Kind.FREEZE_AGENT, Kind.DRAIN):
            pids = pids[:1]
        return _Target(program=name, pids=tuple(pids)) if pids else None

    def _one_drains(self) -> bool:
        """True while an agent server is on its way out: a rolling restart takes them in turn."""
        programs = self._stack.programs().items()
        return any(
            program.pid in self._draining or program.state != "RUNNING"
            for name, program in programs
            if name.startswith("agent")
        )

    def _job(self, pick: float) -> _Target | None:
        """A process of one agent alone: a job of an agent server with the process executor."""
        servers = {
            program.pid
            for name, program in self._stack.programs().items()
            if name.startswith("agent")
        }
        pids = {pid for _, pid in self._watch.liveness.agents_alive_now()} - servers
        jobs = sorted(pid for pid in pids if os.path.exists(f"/proc/{pid}"))
        if not jobs:
            return None
        return _Target(program="job", pids=(jobs[int(pick * len(jobs))],))


def _send(number: signal.Signals, pids: Iterable[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
