"""Is livekit-agents' watchdog kept from where it stops the process, and left where it does not?"""

from __future__ import annotations

import asyncio
import sys

import pytest
from livekit.agents import AgentServer, JobContext, JobExecutorType
from livekit.agents.telemetry import loop_monitor

from worker_agent.existing import rtc_session
from worker_agent.loop_watchdog import restrain

SWITCH = "LIVEKIT_AGENTS_LOOP_BLOCK_WARN_MS"


async def _entrypoint(ctx: JobContext) -> None:
    """Any job."""


def _is_watched() -> bool:
    async def look() -> bool:
        loop = asyncio.get_running_loop()
        watching = loop_monitor.start_monitoring(loop) is not None
        loop_monitor.stop_monitoring(loop)
        return watching

    return asyncio.run(look())


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "set")  # so that it is taken back at the end, whoever has set it
    monkeypatch.delenv(SWITCH)


def test_it_watches_unless_told_otherwise() -> None:
    assert _is_watched()


@pytest.mark.parametrize("executor", list(JobExecutorType))
def test_no_python_that_it_can_stop_has_it(
    executor: JobExecutorType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 11, 7))
    rtc_session(AgentServer(job_executor_type=executor), _entrypoint)
    assert not _is_watched()


@pytest.mark.parametrize(
    ("executor", "watched"), [(JobExecutorType.PROCESS, True), (JobExecutorType.THREAD, False)]
)
def test_of_newer_ones_job_processes_have_it(
    executor: JobExecutorType, watched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 12, 0))
    restrain(executor)
    assert _is_watched() is watched


def test_who_has_asked_for_it_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "250")
    restrain(JobExecutorType.THREAD)
    assert _is_watched()
