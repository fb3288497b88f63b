"""livekit-agents' watchdog tells of a blocked loop, and cannot stop the process."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from livekit.agents.telemetry import loop_monitor

from devstack import PROJECT_ROOT
from worker_agent.livekit_workarounds import loop_watchdog as workaround

SWITCH = loop_monitor.ENV_WARN_THRESHOLD_MS
BLOCKED = "event loop blocked for "

# A program of livekit-agents', whose one job blocks its loop; nothing but LiveKit is missing.
_PROGRAM = """
import asyncio, logging, os, subprocess, sys, time
from livekit.agents import AgentServer, JobContext, JobExecutorType
from worker_agent import rtc_session

server = AgentServer(
    job_executor_type=JobExecutorType(sys.argv[1]),
    num_idle_processes=1, host="127.0.0.1", port=0,
    ws_url="ws://127.0.0.1:1", api_key="key", api_secret="secret" * 8,
)

@rtc_session(server, agent_name="blocking")
async def blocking(ctx: JobContext) -> None:
    await asyncio.sleep(0.5)
    time.sleep(float(sys.argv[2]))
    await asyncio.sleep(0.5)
    inherited = subprocess.run(["env"], capture_output=True, text=True).stdout
    logging.warning("the environment has the switch: %s", "LOOP_BLOCK" in inherited)
    ctx.shutdown()

async def main() -> None:
    running = asyncio.create_task(server.run(unregistered=True))
    started = asyncio.Event()
    server.once("worker_started", started.set)
    await started.wait()
    await server.simulate_job("room", fake_job=True)
    while not server.active_jobs:
        await asyncio.sleep(0.05)
    while server.active_jobs:
        await asyncio.sleep(0.05)
    await server.aclose()

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    asyncio.run(main())
    sys.stderr.flush()
    os._exit(0)
"""


def _logged(directory: Path, executor: str, block_s: float, **environ: str) -> str:
    """What the program logs about a job that blocks its loop for so long."""
    program = directory / "program.py"
    program.write_text(_PROGRAM)
    own = {name: value for name, value in os.environ.items() if name != SWITCH}
    done = subprocess.run(
        [sys.executable, str(program), executor, str(block_s)],
        env={**own, "PYTHONPATH": str(PROJECT_ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "the environment has the switch:" in done.stderr, "the job has not come to its end"
    return done.stderr


def longest_ms(logged: str) -> int:
    """The longest block that was warned of; 0 where none was."""
    return max((int(found) for found in re.findall(rf"{BLOCKED}(\d+)ms", logged)), default=0)


@pytest.mark.parametrize(
    ("executor", "block_s"), [("process", 1.0), ("thread", 1.0), ("thread", 0.5)]
)
def test_a_job_that_blocks_its_loop_is_warned_of(
    executor: str, block_s: float, tmp_path: Path
) -> None:
    logged = _logged(tmp_path, executor, block_s)

    assert longest_ms(logged) > 700 * block_s
    assert ("in blocking" in logged) == (sys.version_info >= (3, 12))  # where no stack is read
    assert "the environment has the switch: False" in logged


@pytest.mark.parametrize("executor", ["process", "thread"])
def test_the_program_s_own_threshold_goes_before_ours(executor: str, tmp_path: Path) -> None:
    assert longest_ms(_logged(tmp_path, executor, 1.0, **{SWITCH: "5000"})) == 0


def test_a_program_can_have_shorter_blocks_reported_in_a_thread(tmp_path: Path) -> None:
    assert longest_ms(_logged(tmp_path, "thread", 0.25, **{SWITCH: "100"})) > 175


def _restored(monkeypatch: pytest.MonkeyPatch, target: object, name: str) -> None:
    monkeypatch.setattr(target, name, getattr(target, name))


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python has mended it")
async def test_no_stacks_are_read_where_that_can_stop_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read_all() -> None:
        raise AssertionError("the stacks of all threads were read")

    _restored(monkeypatch, loop_monitor.EventLoopMonitor, "_sample_loop_thread")
    assert workaround.make_safe()
    monkeypatch.setattr(sys, "_current_frames", read_all)
    monitor = loop_monitor.EventLoopMonitor(asyncio.get_running_loop())

    assert monitor._sample_loop_thread(0.2).lag == 0.2


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="Python has mended it")
def test_another_monitor_than_the_one_known_is_off_and_the_log_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def sample(self: object, lag: float) -> None:
        """Samples in a way of its own."""

    monkeypatch.setattr(loop_monitor.EventLoopMonitor, "_sample_loop_thread", sample)
    _restored(monkeypatch, loop_monitor, "DEFAULT_WARN_THRESHOLD")
    monkeypatch.delenv(SWITCH, raising=False)

    assert not workaround.make_safe()
    workaround.turn_off()

    assert loop_monitor.LoopMonitorThresholds.from_env() is None
    assert "not watched" in caplog.text
