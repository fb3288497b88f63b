"""The testbed: the stack and the contenders under measurement, started, watched and cleared."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import psutil
import redis
from livekit import api
from livekit.protocol.models import ParticipantInfo

from bench import BenchError
from bench.contenders import CONTENDERS, USHER, Contender
from bench.livekit_log import LiveKitLog, Tail
from bench.procfiles import USHER_KEYS, Kind, Plan, plan, usher_client
from bench.sessions import Caller, Session
from dispatcher.clients.client_registry import LOOK_S
from tests.support.stacks import RunningStack, running_stack

_STARTS_WITHIN_S: Final = 60
# What idle contenders take is below this; what still is busy has something left to do.
_QUIET_PERCENT: Final = 15.0
_IDLE_PERCENT: Final = 25.0


@dataclass(kw_only=True)
class Testbed:
    """A running stack with every contender in it."""

    kind: Kind
    contenders: Sequence[str]
    stack: RunningStack
    plan: Plan
    log: LiveKitLog
    livekit: api.LiveKitAPI
    http: aiohttp.ClientSession
    _callers: dict[str, Caller] = field(default_factory=dict)
    _told: dict[str, Tail] = field(default_factory=dict)
    _noticed: dict[str, float] = field(default_factory=dict)

    # --- asking -----------------------------------------------------------------------------

    def rooms(self, contender: Contender, count: int) -> list[str]:
        """Names of rooms that were never there."""
        run = secrets.token_hex(4)
        return [f"{contender.name}-{run}-{number}" for number in range(count)]

    def url(self, contender: Contender) -> str:
        """Where sessions of a contender are asked for; empty where that is LiveKit itself."""
        if not contender.web:
            return ""
        if contender.placement:
            return f"{self.stack.web_url}/api/v1/dispatches"
        return f"http://127.0.0.1:{self.plan.ports[contender.web]}/dispatches"

    async def caller(self, contender: Contender) -> Caller:
        """The process that asks this contender, started at its first use."""
        if contender.name not in self._callers:
            self._callers[contender.name] = await Caller.start(
                contender.asked_by,
                {
                    "LIVEKIT_URL": self.stack.livekit_url,
                    "LIVEKIT_API_KEY": self.stack.livekit_api_key,
                    "LIVEKIT_API_SECRET": self.stack.livekit_api_secret,
                    "BENCH_URL": self.url(contender),
                    "BENCH_KEY": USHER_KEYS["secret"]
                    if contender.placement
                    else self.plan.environ["USHER_BENCH_KEY"],
                },
            )
        return self._callers[contender.name]

    async def place(self, contender: Contender) -> None:
        """Have Usher's client place its jobs as this contender does."""
        text = usher_client(self.plan, contender.placement)
        if contender.placement and text != self.plan.clients_file.read_text():
            self.plan.clients_file.write_text(text)
            await asyncio.sleep(LOOK_S + 0.1)

    async def ask(self, contender: Contender, rooms: Sequence[str]) -> list[Session]:
        """Ask for all of these at once; returns when each is answered."""
        caller = await self.caller(contender)
        answers = await asyncio.gather(*(caller.ask(room) for room in rooms))
        return [
            Session(
                room=answer["room"],
                t0_ms=answer["t0_ms"],
                answered_s=answer["took_s"],
                error=answer["error"],
                dispatch_id=answer["id"],
            )
            for answer in answers
        ]

    # --- watching ---------------------------------------------------------------------------

    async def see(self, contender: Contender, sessions: Iterable[Session]) -> None:
        """Fill in who is there, by LiveKit's list and log, and when the contender knew."""
        for session in sessions:
            listed = await self.livekit.room.list_participants(
                api.ListParticipantsRequest(room=session.room)
            )
            agents = [
                one
                for one in listed.participants
                if one.kind == ParticipantInfo.AGENT and one.state == ParticipantInfo.ACTIVE
            ]
            session.agents = len(agents)
            session.joined_at_ms = min((one.joined_at_ms for one in agents), default=None)
            session.active_ms = self.log.first_active_ms(session.room)
            assigned = self.log.assigned.get(session.room)
            session.assigned_ms = min(assigned) if assigned else None
            session.noticed_ms = await self.noticed_ms(contender, session)
            if session.agents != 1 and session.dispatch_id and contender.placement:
                record = await self.record(contender, session.dispatch_id)
                words = record["state"], f"generation {record['generation']}"
                session.record = " ".join([*words, record["failure_reason"] or ""]).strip()

    async def noticed_ms(self, contender: Contender, session: Session) -> float | None:
        """When the contender itself knew that the agent has joined; None: not (yet)."""
        if contender.placement and session.dispatch_id:
            record = await self.record(contender, session.dispatch_id)
            return next(
                (event["at_ms"] for event in record["timeline"] if event["event"] == "joined"), None
            )
        if contender.told_by:
            self._listen()
        return self._noticed.get(session.room)

    async def wait_until_noticed(
        self, contender: Contender, session: Session, *, within_s: float
    ) -> None:
        """Wait until the contender knows, where it ever does."""
        until = time.monotonic() + within_s
        while contender.asked_by == "http" and time.monotonic() < until:
            if await self.noticed_ms(contender, session) is not None:
                return
            await asyncio.sleep(0.05)

    async def record(self, contender: Contender, dispatch_id: str) -> dict[str, Any]:
        """Usher's record of a dispatch."""
        headers = {"Authorization": f"Bearer {USHER_KEYS['secret']}"}
        url = f"{self.stack.web_url}/api/v1/dispatches/{dispatch_id}"
        async with self.http.get(url, headers=headers) as response:
            response.raise_for_status()
            record: dict[str, Any] = await response.json()
            return record

    def _listen(self) -> None:
        for tail in self._told.values():
            for line in tail.news():
                start = line.find('{"event": "joined"')
                if start >= 0:
                    with contextlib.suppress(json.JSONDecodeError):
                        said = json.loads(line[start:])
                        self._noticed.setdefault(said["room"], said["at_ms"])

    def cpu_s(self) -> dict[str, float]:
        """CPU seconds of each program with all its processes, since each began."""
        found = {}
        for name, program in self.stack.programs().items():
            with contextlib.suppress(psutil.Error):
                first = psutil.Process(program.pid)
                total = _cpu_s(first, dead_children=True)
                for child in first.children(recursive=True):
                    with contextlib.suppress(psutil.Error):
                        total += _cpu_s(child, dead_children=True)
                found[name] = total
        return found

    def rss_bytes(self, program: str) -> int:
        """Memory of a program's processes that is theirs alone or shared (RSS)."""
        total = 0
        for pid in self.stack.pids(program):
            with contextlib.suppress(psutil.Error):
                total += psutil.Process(pid).memory_info().rss
        return total

    async def stop(self, *programs: str) -> None:
        """Stop these programs."""
        names = [f"usher:{program}" for program in programs]
        await asyncio.to_thread(self.stack.supervisorctl, "stop", *names)

    async def start(self, *programs: str) -> None:
        """Start these programs again."""
        names = [f"usher:{program}" for program in programs]
        await asyncio.to_thread(self.stack.supervisorctl, "start", *names)

    async def fake(self, what: str, body: str = "") -> None:
        """Tell the LiveKit that only answers."""
        url = f"http://127.0.0.1:{self.plan.ports['fake']}/{what}"
        async with self.http.post(url, data=body) as response:
            response.raise_for_status()

    async def fake_json(self, what: str) -> Any:
        """Ask the LiveKit that only answers what it has seen."""
        async with self.http.get(f"http://127.0.0.1:{self.plan.ports['fake']}/{what}") as response:
            response.raise_for_status()
            return await response.json()

    def redis(self, program: str = "redis") -> redis.Redis:
        """A client of Usher's Redis, or of a contender's own."""
        if program == "redis":
            return redis.Redis.from_url(self.stack.redis_url, decode_responses=True)
        return redis.Redis(port=self.plan.ports[program], decode_responses=True)

    # --- clearing away ----------------------------------------------------------------------

    async def begin_anew(self, contender: Contender) -> None:
        """Drop all that a contender still has to do, and start its programs again."""
        programs = (contender.web, *contender.workers)
        await self.stop(*programs)
        if contender.redis:
            with self.redis(contender.redis) as client:
                client.flushall()
        await self.fake("forget")
        await self.start(*programs)
        await self._wait_for_answer(contender)

    async def end(self, rooms: Iterable[str], *, within_s: float = 8.0) -> None:
        """Close these rooms and wait until their agents' jobs have ended."""
        rooms = list(rooms)
        expected = sum(len(self.log.assigned.get(room, ())) for room in rooms)
        # LiveKit's log has no job that Usher has placed itself: its agent servers count those.
        placed = [r for r in rooms if self.log.agents.get(r) and r not in self.log.assigned]
        others = await self._usher_jobs() - len(placed) if placed else 0
        before = self.log.ended.total()
        for room in rooms:
            with contextlib.suppress(api.TwirpError, aiohttp.ClientError):
                await self.livekit.room.delete_room(api.DeleteRoomRequest(room=room))
        until = time.monotonic() + within_s
        while self.log.ended.total() - before < expected and time.monotonic() < until:
            await asyncio.sleep(0.02)
        while placed and time.monotonic() < until and await self._usher_jobs() > max(0, others):
            await asyncio.sleep(0.02)

    async def _usher_jobs(self) -> int:
        """How many jobs Usher's agent servers run, by their own word."""
        jobs = 0
        for name in self.plan.agents:
            if port := self.plan.ports.get(name):
                async with self.http.get(f"http://127.0.0.1:{port}/worker") as response:
                    jobs += (await response.json()).get("active_jobs", 0)
        return jobs

    async def settle(self, *, within_s: float = 20.0) -> float:
        """Wait until the processors are free; returns how busy they were at the end (percent)."""
        until = time.monotonic() + within_s
        while True:
            psutil.cpu_percent(None)
            await asyncio.sleep(0.5)
            busy: float = psutil.cpu_percent(None)
            if busy < _QUIET_PERCENT or time.monotonic() > until:
                return busy

    async def warm_up(self) -> None:
        """Run some sessions first: the first ones of a process pay for what it loads then."""
        if self.kind in (Kind.DISPATCH_ONLY, Kind.LIVE):
            return
        for name in self.contenders:
            contender = CONTENDERS[name]
            rooms = self.rooms(contender, 3)
            await self.ask(contender, rooms)
            await self.log.wait_for_agents(rooms, within_s=15)
            await asyncio.sleep(0.7)
            await self.end(rooms)

    async def rest(self) -> float:
        """Like `settle`; agent servers that do not come to rest are restarted.

        After too large a burst one was busy for minutes with rooms long gone, and the contender
        measured next had half a machine.
        """
        busy = await self.settle()
        if busy >= _IDLE_PERCENT:
            await self.stop(*self.plan.agents)
            await self.start(*self.plan.agents)
            await self.warm_up()
            busy = await self.settle()
        return busy

    async def _start(self) -> None:
        for name in self.contenders:
            contender = CONTENDERS[name]
            if contender.asked_by == "http" and not contender.placement:
                await self._wait_for_answer(contender)
            if contender.told_by:
                path = self.stack.run_dir / "log" / f"{contender.told_by}.log"
                self._told[contender.name] = Tail(path)

    async def _wait_for_answer(self, contender: Contender) -> None:
        until = time.monotonic() + _STARTS_WITHIN_S
        while time.monotonic() < until:
            with contextlib.suppress(aiohttp.ClientError):
                async with self.http.post(self.url(contender), json={}) as response:
                    if response.status == 401:
                        return
            await asyncio.sleep(0.2)
        log = self.stack.log(contender.web)[-2000:]
        raise BenchError(f"{contender.title} does not answer:\n{log}")

    async def _close(self) -> None:
        for caller in self._callers.values():
            await caller.aclose()
        for tail in self._told.values():
            tail.close()
        await self.livekit.aclose()
        await self.http.close()
        self.log.close()


def _cpu_s(process: psutil.Process, *, dead_children: bool) -> float:
    times = process.cpu_times()
    own = times.user + times.system
    return own + times.children_user + times.children_system if dead_children else own


@contextlib.asynccontextmanager
async def testbed(kind: Kind, contenders: Sequence[str]) -> AsyncIterator[Testbed]:
    """Everything up; nothing of it left at the end."""
    with tempfile.TemporaryDirectory(prefix="usher-bench-") as directory:
        run_dir = Path(directory) / "run"
        wanted = plan(kind, run_dir, contenders)
        procfile = Path(directory) / "Procfile"
        procfile.write_text(wanted.procfile)
        wanted.clients_file.write_text(usher_client(wanted, USHER.placement))
        stack_context = running_stack(run_dir, environ=wanted.environ, procfile=procfile)
        stack = await asyncio.to_thread(stack_context.__enter__)
        try:
            bed = Testbed(
                kind=kind,
                contenders=contenders,
                stack=stack,
                plan=wanted,
                log=LiveKitLog(stack.run_dir / "log" / "livekit.log"),
                livekit=api.LiveKitAPI(
                    stack.livekit_url,
                    stack.livekit_api_key,
                    stack.livekit_api_secret,
                    failover=False,
                ),
                http=aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=16)),
            )
            reading = asyncio.create_task(bed.log.run(), name="livekit-log")
            try:
                await bed._start()
                yield bed
            finally:
                reading.cancel()
                await bed._close()
        finally:
            await asyncio.to_thread(stack_context.__exit__, None, None, None)
