"""Sessions of a measurement: ask for them, and read what became of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Final

from bench import PROJECT_ROOT, BenchError

_STARTS_WITHIN_S: Final = 60


@dataclass(kw_only=True)
class Session:
    """The outcome of one session. Times are ms since the epoch, of this machine's one clock."""

    room: str
    t0_ms: float
    answered_s: float = 0.0
    error: str = ""
    dispatch_id: str = ""
    active_ms: float | None = None  # by LiveKit's log
    assigned_ms: float | None = None  # when LiveKit gave the job to the agent server
    joined_at_ms: int | None = None  # as LiveKit lists it
    agents: int = 0
    noticed_ms: float | None = None  # when the contender itself knew
    record: str = ""  # Usher's own word for it: state, generation, reason

    @property
    def time_to_join_s(self) -> float | None:
        """From the request to the agent being ACTIVE."""
        return None if self.active_ms is None else (self.active_ms - self.t0_ms) / 1000

    def as_json(self) -> dict[str, Any]:
        """To be kept."""

        def ms_after(at_ms: float | None) -> float | None:
            return None if at_ms is None else round(at_ms - self.t0_ms, 1)

        return {
            "answered_ms": round(self.answered_s * 1000, 2),
            "active_ms": ms_after(self.active_ms),
            "assigned_ms": ms_after(self.assigned_ms),
            "joined_at_ms": ms_after(self.joined_at_ms),
            "noticed_ms": ms_after(self.noticed_ms),
            "agents": self.agents,
            **({"error": self.error} if self.error else {}),
            **({"record": self.record} if self.record else {}),
        }


class Caller:
    """A `bench.caller` in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._looped: asyncio.Future[dict[str, Any]] | None = None
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, kind: str, environ: dict[str, str]) -> Caller:
        """Start one; it is ready when this returns."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bench.caller",
            kind,
            cwd=PROJECT_ROOT,
            env={**os.environ, **environ},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=2**27,
        )
        assert process.stdout is not None
        async with asyncio.timeout(_STARTS_WITHIN_S):
            if await process.stdout.readline() != b"ready\n":
                raise BenchError(f"the caller for {kind} did not start")
        return cls(process)

    def ask(self, room: str) -> asyncio.Future[dict[str, Any]]:
        """Have a session asked for at once."""
        future = self._waiting[room] = asyncio.get_running_loop().create_future()
        self._write({"room": room})
        return future

    async def loop(self, **wanted: object) -> dict[str, Any]:
        """Have sessions asked for again and again; see `bench/caller.py`."""
        self._looped = asyncio.get_running_loop().create_future()
        self._write(wanted)
        return await self._looped

    def _write(self, line: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(line).encode() + b"\n")

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            answer = json.loads(line)
            if "took_s" in answer and isinstance(answer["took_s"], list):
                assert self._looped is not None
                self._looped.set_result(answer)
            elif (future := self._waiting.pop(answer["room"], None)) and not future.done():
                future.set_result(answer)

    async def aclose(self) -> None:
        """End it."""
        self._reader.cancel()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
