"""What does an agent server need for joins, and for rooms in which nothing happens?

`python -m tests.measure.agent_cost`, two minutes. Sessions asked for at once, by the thread
executor; counted is the processor time of the agent server, until the last has joined, and in the
ten seconds after that. Once as Usher has it, once with livekit-agents' watchdog for each job's
event loop, and once with livekit-rtc's debug records going through Python: what any livekit-agents
program has, unless it turns them off.
"""

from __future__ import annotations

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import psutil

from devstack import PROJECT_ROOT
from devstack.supervision import read_procfile
from tests.acceptance.session import Caller
from tests.support.stacks import RunningStack, running_stack

_SESSIONS: Final = 30
_IDLE_S: Final = 10.0


def _cpu_s(stack: RunningStack) -> float:
    times = [psutil.Process(pid).cpu_times() for pid in stack.pids("agent")]
    return sum(each.user + each.system for each in times)


def _procfile(path: Path, variable: str) -> Path:
    """The Procfile; the stack passes no variable on to its processes that it does not know."""
    lines = read_procfile(PROJECT_ROOT / "Procfile")
    lines["agent"] = lines["agent"].replace("exec ", f"exec env {variable} ", 1)
    path.write_text("".join(f"{name}: {command}\n" for name, command in lines.items()))
    return path


def _measure(name: str, variable: str) -> None:
    wanted = {"USHER_AGENT_EXECUTOR": "thread", "USHER_AGENT_SLOTS": str(2 * _SESSIONS)}
    with (
        tempfile.TemporaryDirectory() as directory,
        running_stack(
            Path(directory) / "run",
            environ=wanted,
            procfile=_procfile(Path(directory) / "Procfile", variable),
        ) as stack,
        ThreadPoolExecutor(_SESSIONS) as pool,
    ):
        caller = Caller(stack)
        before, began = _cpu_s(stack), time.monotonic()
        rooms = [f"room-{number}" for number in range(_SESSIONS)]
        for answer in list(pool.map(lambda room: caller.post(room_name=room), rooms)):
            caller.wait_for_state(answer["dispatch_id"], "joined", within_s=30)
        joined, took_s = _cpu_s(stack), time.monotonic() - began
        time.sleep(_IDLE_S)  # a measured time, not a wait
        after = _cpu_s(stack)
        caller.http.close()
    join_ms = (joined - before) / _SESSIONS * 1000
    idle = (after - joined) / _IDLE_S / _SESSIONS
    print(
        f"{name}: {_SESSIONS} joined in {took_s:.1f} s, {join_ms:.0f} ms of processor time each; "
        f"in the {_IDLE_S:.0f} s after that {idle:.1%} of a core each"
    )


if __name__ == "__main__":
    _measure("as it is", "")
    _measure("with a watchdog for each job", "LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS=100")
    _measure("with livekit-rtc's debug records", "LIVEKIT_RTC_DEBUG=1")
