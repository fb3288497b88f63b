"""With a livekit-agents or livekit-rtc of other private names Usher goes on, and says so."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from livekit.agents import JobExecutorType
from livekit.rtc._ffi_client import FfiClient

from worker_agent.livekit_workarounds import (
    agent_server,
    agent_session,
    ffi_events,
    native_client,
    own_load,
    process_pool,
    shutdown,
    unknown_release,
)

UNKNOWN: Any = SimpleNamespace()


@pytest.fixture(autouse=True)
def nothing_said() -> None:
    """A process that has logged no such line yet."""
    unknown_release.warn.cache_clear()


@pytest.fixture
def agent_name(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name that the operator gives the agent by the environment."""
    monkeypatch.setenv("LIVEKIT_AGENT_NAME", "by-environment")
    return "by-environment"


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (agent_server.executor, JobExecutorType.PROCESS),
        (agent_server.agent_name, "by-environment"),
        (agent_server.will_register, True),
        (agent_server.is_connected, True),
        (own_load.accepts, None),
        (agent_session.is_closing, False),
        (lambda _: process_pool.watch(UNKNOWN, died=UNKNOWN, started=UNKNOWN), False),
        (lambda _: shutdown.on_beginning(UNKNOWN, UNKNOWN), None),
        (ffi_events.narrow, None),
    ],
)
async def test_the_usual_is_taken_to_be_true_and_the_log_says_so_once(
    ask: Callable[[Any], object],
    answer: object,
    agent_name: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert [ask(UNKNOWN), ask(UNKNOWN)] == [answer, answer]

    assert caplog.text.count("is not known to Usher") == 1


async def test_livekit_is_told_nothing_of_a_server_that_cannot_be_read(
    caplog: pytest.LogCaptureFixture,
) -> None:
    await own_load.tell_that_it_is_free(UNKNOWN)

    assert "livekit-agents" in caplog.text
    assert "is not known to Usher" in caplog.text


def test_a_native_client_of_other_names_is_left_to_livekit_rtc(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delattr(FfiClient, "_instance")

    native_client.make()

    assert "is not known to Usher" in caplog.text
