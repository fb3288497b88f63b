"""Which parts does readiness miss?"""

from __future__ import annotations

import pytest

from dispatcher import heartbeat
from dispatcher.clients import Client, ClientRegistry, LiveKitCredentials
from dispatcher.settings import DispatcherSettings
from tests.support import AGENT_NAME, a_server
from web.health import missing

CLIENT = Client(
    client_id="acme",
    livekit=LiveKitCredentials(url="", api_key="", api_secret=""),
    agent_names=(AGENT_NAME, "another"),
    container="",
    deadline_s=20,
)
PARTS = frozenset(
    {
        heartbeat.worker("dispatch"),
        heartbeat.worker("verify"),
        heartbeat.SWEEPER,
        heartbeat.livekit("acme"),
    }
)


@pytest.mark.parametrize(
    ("unfenced", "reported", "missed"),
    [
        ("", True, []),
        ("", False, [f"agent:{AGENT_NAME}"]),
        ("another", False, [f"agent:{AGENT_NAME}"]),
        (f"another, {AGENT_NAME}", False, []),
    ],
)
def test_an_agent_that_reports_nothing_anyway_is_not_missed(
    unfenced: str, reported: bool, missed: list[str]
) -> None:
    settings = DispatcherSettings(USHER_UNFENCED_AGENTS=unfenced)
    servers = [a_server()] if reported else []

    assert missing(ClientRegistry(clients=(CLIENT,)), settings, PARTS, servers) == missed
