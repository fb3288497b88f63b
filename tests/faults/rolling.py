"""What does an upgrade look like from outside? Every process is stopped and started, under load.

A stack with two of each process that wants two, people who come all the time, and every process
ended by SIGTERM as `systemctl restart` or a rollout does it: kinds at the same time, those of a
kind one after the other, the next one when the last does its work again.
"""

from __future__ import annotations

import asyncio
import random
import shlex
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from devstack import PROJECT_ROOT
from devstack.supervision import read_procfile
from tests.acceptance.session import wait_for
from tests.support.stacks import RunningStack

from .campaign.evidence import Evidence, read_evidence
from .campaign.journal import Journal, Tail, read_journal
from .campaign.liveness import Liveness
from .campaign.plan import Plan, Visit
from .campaign.rounds import last_look, note_lag, settle
from .campaign.visitors import Street
from .campaign.watching import LOOK_EVERY_S, Watch

WEBS = 2
PER_S = 0.8
MOST_SESSIONS = 400
_SETTLES_WITHIN_S = 30.0
_DRAIN_S = 60
# What a stop may take: of a worker its longest task, of an agent server its drain and the end of
# its job processes.
_STOPS_WITHIN_S = 100.0
_STARTS_WITHIN_S = 60.0
# How long an agent must be in its room to be in LiveKit's list that is looked at.
_LISTED_AFTER_S = 2 * LOOK_EVERY_S
# LiveKit may give the other agent server several sessions one after the other.
_SERVES_WITHIN_S = 30.0
AGENTS = ("agent", "agent2")
JOIN_LOG = "agents.jsonl"
SERVERS = ("redis", "livekit")


def write_procfile(path: Path) -> Path:
    """The project's own Procfile, with two of each process of which a restart wants two."""
    lines = read_procfile(PROJECT_ROOT / "Procfile")
    for name in ("dispatch", "verify"):
        lines[f"{name}2"] = f"export USHER_INSTANCE=2; {lines[name]}"
    lines["agent2"] = f"export USHER_AGENT_PORT=0; {lines['agent']}"
    lines["web"] = f"exec python -m tests.faults.held_socket {WEBS} {shlex.quote(lines['web'])}"
    with path.open("w") as file:
        for name, command in lines.items():
            file.write(
                f'{name}: export USHER_ALIVE_FILE="$USHER_RUN_DIR/{name}.alive"; {command}\n'
            )
    return path


def wait_until_all_work(stack: RunningStack) -> None:
    """The second of a kind, too, which readiness does not know."""
    names = [name for name in stack.programs() if name not in (*SERVERS, "web", "flower")]
    files = [stack.run_dir / f"{name}.alive" for name in names]
    wait_for(
        "every process at its work",
        lambda: all(file.exists() for file in files) or None,
        within_s=_STARTS_WITHIN_S,
    )


@dataclass(frozen=True, kw_only=True)
class Drained:
    """An agent server that was told to stop: its processes then, and how long it took."""

    at: float
    pids: frozenset[int]
    took_s: float


def identities(evidence: Evidence) -> dict[str, set[str]]:
    """Every agent that LiveKit has ever listed in each room."""
    return {
        name: {agent for view in room.views for agent in view.agents or {}}
        for name, room in evidence.rooms.items()
    }


def live_when_stopped(evidence: Evidence, server: Drained) -> int:
    """Sessions whose agent was in its room when its agent server was told to stop."""
    liveness, count = evidence.liveness, 0
    for room in evidence.rooms.values():
        listed: Mapping[str, int] = {}
        for view in room.views:
            if view.at <= server.at:
                listed = view.agents or {}
        count += sum(
            liveness.pid(agent) in server.pids and liveness.alive(agent, server.at)
            for agent in listed
        )
    return count


class Restarts:
    """Ends processes, and waits until what is started in their place does its work.

    An agent server is ended when `join_log`, the agents' own, says that it has a session: else
    its end would show nothing. `kill`: by SIGKILL, with all that they have started, as a control.
    """

    def __init__(self, stack: RunningStack, join_log: Path, *, kill: bool = False) -> None:
        self._stack = stack
        self._join_log = Tail(join_log)
        self._liveness = Liveness()
        self._kill = kill
        self.stopped_s: dict[str, float] = {}
        self.drained: list[Drained] = []

    async def all(self, *, in_turn: bool) -> None:
        """Each process of the stack, once; kinds at the same time, unless `in_turn`."""
        kinds: list[Callable[[], None]] = [
            self.webs,
            lambda: self.programs("dispatch", "dispatch2"),
            lambda: self.programs("verify", "verify2"),
            lambda: self.programs("beat"),
            lambda: self.programs("flower"),
            lambda: self.programs(*AGENTS),
        ]
        if in_turn:
            for kind in kinds:
                await asyncio.to_thread(kind)
        else:
            await asyncio.gather(*(asyncio.to_thread(kind) for kind in kinds))

    def webs(self) -> None:
        """One web after the other; the socket is held by nobody of them."""
        [holder, *_] = self._stack.pids("web")
        for number, old in enumerate(psutil.Process(holder).children()):
            known = {process.pid for process in psutil.Process(holder).children()}
            self.stopped_s[f"web{number + 1}"] = self._end(old)

            def started(known: set[int] = known) -> bool | None:
                masters = psutil.Process(holder).children()
                fresh = [process for process in masters if process.pid not in known]
                # Type=notify has systemd wait as long: gunicorn is up and makes its workers.
                return True if len(masters) == WEBS and fresh and fresh[0].children() else None

            wait_for("the next web", started, within_s=_STARTS_WITHIN_S)

    def programs(self, *names: str) -> None:
        """One after the other."""
        for name in names:
            self._program(name)

    def _program(self, name: str) -> None:
        if name in AGENTS:
            wait_for(f"a session of {name}", lambda: self._serves(name), within_s=_SERVES_WITHIN_S)
        pids, at = self._stack.pids(name), time.time()
        alive = self._stack.run_dir / f"{name}.alive"
        took_s = self._end(psutil.Process(pids[0]))
        self.stopped_s[name] = took_s
        if name in AGENTS:
            self.drained.append(Drained(at=at, pids=frozenset(pids), took_s=took_s))

        def at_work() -> bool | None:
            program = self._stack.programs().get(name)
            if program is None or program.state != "RUNNING" or program.pid == pids[0]:
                return None
            # Flower has none, and nobody waits for it.
            return True if name == "flower" or alive.stat().st_mtime > at + took_s else None

        wait_for(f"{name} at work again", at_work, within_s=_STARTS_WITHIN_S)

    def _serves(self, name: str) -> bool | None:
        for event in self._join_log.news():
            self._liveness.take(event)
        pids, now = self._stack.pids(name), time.time()
        joined_at = [
            self._liveness.joined_at(agent)
            for agent, pid in self._liveness.agents_alive_now()
            if pid in pids
        ]
        return any(at is not None and at + _LISTED_AFTER_S <= now for at in joined_at) or None

    def _end(self, process: psutil.Process) -> float:
        began = time.monotonic()
        if self._kill:
            for child in process.children(recursive=True):
                child.kill()
            process.kill()
        else:
            process.terminate()
        psutil.wait_procs([process], timeout=_STOPS_WITHIN_S)
        assert not process.is_running(), f"{process} did not stop in {_STOPS_WITHIN_S} s"
        return time.monotonic() - began


def environment(directory: Path) -> dict[str, str]:
    """What the stack of `write_procfile` wants on top."""
    return {
        "USHER_AGENT_ENTRYPOINT": "tests.faults.campaign.agent:entrypoint",
        "USHER_CAMPAIGN_JOIN_LOG": str(directory / JOIN_LOG),
        "USHER_AGENT_DRAIN_S": str(_DRAIN_S),
        "USHER_AGENT_IDLE_PROCESSES": "2",
    }


async def upgrade(
    stack: RunningStack,
    directory: Path,
    restart: Callable[[], Awaitable[None]],
    *,
    stays_s: tuple[float, float] = (2.0, 4.0),
) -> Evidence:
    """Restart while people come and go; returns when the last of them has left."""
    journal = Journal(directory / "driver.jsonl")
    watch = Watch(stack, journal, directory / JOIN_LOG)
    background = [asyncio.create_task(watch.run()), asyncio.create_task(note_lag(journal))]
    journal.write("begins")
    visits: list[Visit] = []
    try:
        async with Street(stack, journal, watch) as street:

            async def restart_under_load() -> None:
                await asyncio.sleep(stays_s[0])  # until the first rooms are full
                await restart()

            restarting = asyncio.create_task(restart_under_load())
            await _stream(street, visits, stays_s, until=restarting)
            await restarting
            await settle(street, journal, directory, _SETTLES_WITHIN_S)
            await last_look(stack, journal, Plan(visits=tuple(visits), faults=()))
    finally:
        for task in background:
            task.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        journal.write("ends")
        journal.close()
    return read_evidence(
        read_journal(directory / "driver.jsonl"), read_journal(directory / JOIN_LOG)
    )


async def _stream(
    street: Street,
    visits: list[Visit],
    stays_s: tuple[float, float],
    *,
    until: asyncio.Task[None],
) -> None:
    """People come until it is done, and all stay as long as they like."""
    dice = random.Random("upgrade")
    staying: list[asyncio.Task[None]] = []
    began = time.monotonic()
    while not until.done() and len(visits) < MOST_SESSIONS:
        visit = Visit(
            room=f"upgrade-{len(visits)}",
            at_s=time.monotonic() - began,
            walks_in_after_s=dice.choice((0.0, 0.3)),
            stay_s=dice.uniform(*stays_s),
            patient=True,
            comes=True,
        )
        visits.append(visit)
        staying.append(asyncio.create_task(street.visit(visit)))
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(until), dice.expovariate(PER_S))
    await asyncio.gather(*staying)
