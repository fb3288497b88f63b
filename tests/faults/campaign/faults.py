"""How is a process killed or frozen, and which one?"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from devstack.testing import RunningStack

from .journal import Journal
from .plan import Fault, Kind
from .watching import Watch

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
}
_WORKERS = ("dispatch", "verify")
_TRIES = 20
_TRY_EVERY_S = 0.5


@dataclass(frozen=True, kw_only=True)
class _Target:
    program: str
    pids: tuple[int, ...]


class Faults:
    """Carries out a plan's faults on one stack."""

    def __init__(self, stack: RunningStack, journal: Journal, watch: Watch) -> None:
        self._stack = stack
        self._journal = journal
        self._watch = watch
        self._number = 0

    async def inject(self, fault: Fault) -> None:
        """Do it; where such a process is not there just now (killed before), wait for it."""
        for _ in range(_TRIES):
            if target := await asyncio.to_thread(self._target, fault):
                break
            await asyncio.sleep(_TRY_EVERY_S)
        else:
            self._journal.write("no_target", kind=fault.kind)
            return
        frozen = fault.kind in (Kind.FREEZE_WORKER, Kind.FREEZE_AGENT, Kind.FREEZE_JOB)
        self._number += 1
        at = self._journal.write(
            "fault",
            fault=self._number,
            kind=fault.kind,
            program=target.program,
            pids=target.pids,
            signal="STOP" if frozen else "KILL",
            hold_s=round(fault.hold_s, 2) if frozen else 0.0,
        )
        if not frozen:
            self._watch.liveness.killed(target.pids, at)
            _send(signal.SIGKILL, target.pids)
            return
        _send(signal.SIGSTOP, target.pids)
        try:
            await asyncio.sleep(fault.hold_s)
        finally:
            _send(signal.SIGCONT, target.pids)

    def _target(self, fault: Fault) -> _Target | None:
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
        elif fault.kind not in (Kind.AGENT, Kind.FREEZE_AGENT):
            pids = pids[:1]
        return _Target(program=name, pids=tuple(pids)) if pids else None

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
