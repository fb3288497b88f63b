"""Which parts does readiness miss?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from dispatcher.clients.client_registry import ClientRegistry
from dispatcher.clients.models import Client, LiveKitCredentials
from dispatcher.clients.worker_settings import Service, WorkerSettings
from dispatcher.domain.models import AgentServerReport
from dispatcher.ledger.statistics import Health
from dispatcher.settings import DispatcherSettings
from tests.support.values import AGENT_NAME, a_server
from web.monitoring.health import missing, unserved

CLIENT = Client(
    client_id="acme",
    livekit=LiveKitCredentials(url="", api_key="", api_secret=""),
    agent_names=(AGENT_NAME, "another"),
    container="",
    deadline_s=20,
)


def standing(*servers: AgentServerReport) -> Health:
    """Everything is at work, with these agent servers."""
    return Health(
        at_ms=1,
        agent_servers=servers,
        workers=frozenset({"dispatch", "verify"}),
        livekit=frozenset({"acme"}),
        sweeper_alive=True,
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
    health = standing(a_server()) if reported else standing()

    assert missing(ClientRegistry(clients=(CLIENT,)), settings, health) == missed


def test_every_agent_that_may_be_asked_for_and_has_no_server_is_named() -> None:
    registry = ClientRegistry(clients=(CLIENT,))
    theirs = Service(client_id="acme", agent_name="of-a-worker")
    workers = [WorkerSettings(worker="vm-1", services=(theirs,), unfenced=("another",))]

    assert unserved(registry, DispatcherSettings(), [], [a_server()]) == ["another"]
    assert unserved(registry, DispatcherSettings(), workers, [a_server()]) == ["of-a-worker"]
    disabled = ClientRegistry(clients=(replace(CLIENT, disabled=True),))
    assert unserved(disabled, DispatcherSettings(), [], []) == []


def test_another_clients_agent_server_is_none_of_this_ones() -> None:
    settings = DispatcherSettings()
    registry = ClientRegistry(clients=(replace(CLIENT, container="box-1"),))
    missed = [f"agent:{AGENT_NAME}"]

    for other in (a_server(client_id="globex"), a_server(container="box-2")):
        assert missing(registry, settings, standing(other)) == missed
    assert missing(registry, settings, standing(a_server(client_id="acme"))) == []


def test_each_part_that_is_silent_is_named() -> None:
    registry = ClientRegistry(clients=(CLIENT,))

    absent = missing(registry, DispatcherSettings(), Health(at_ms=1))

    parts = ["worker:dispatch", "worker:verify", "sweeper", "livekit:acme"]
    assert absent == [*parts, f"agent:{AGENT_NAME}"]
