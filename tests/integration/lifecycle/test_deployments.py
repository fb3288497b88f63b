"""Agent servers of a deployment (`LIVEKIT_AGENT_DEPLOYMENT`) get the sessions that ask for it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from dispatcher.clients.models import LiveKitCredentials
from dispatcher.domain.models import NewDispatch, State
from dispatcher.ledger import dispatches, leases, reports
from dispatcher.ledger.client import Ledger
from dispatcher.lifecycle.dispatching import dispatch_agent
from dispatcher.livekit.client import LiveKitClients
from tests.conftest import free_port, process
from tests.support.house import House, OpenServices
from tests.support.scenario import Scenario
from tests.support.values import AGENT_NAME, a_dispatch, eventually, new_dispatch
from web.contract.participant_tokens import delegated_agents

if TYPE_CHECKING:
    from tests.conftest import LiveKitServer

STAGING = "staging"


@pytest.fixture
def staging(
    raw: redis.Redis, redis_url: str, livekit_server: LiveKitServer, tmp_path: Path
) -> Iterator[None]:
    """A real agent server that runs with LIVEKIT_AGENT_DEPLOYMENT=staging."""
    environ = {
        "REDIS_URL": redis_url,
        "LIVEKIT_URL": livekit_server.url,
        "LIVEKIT_API_KEY": livekit_server.api_key,
        "LIVEKIT_API_SECRET": livekit_server.api_secret,
        "LIVEKIT_AGENT_DEPLOYMENT": STAGING,
        "USHER_AGENT_EXECUTOR": "thread",
        "USHER_AGENT_PORT": str(free_port()),
    }
    settings = [f"{name}={value}" for name, value in environ.items()]
    command = ["env", *settings, sys.executable, "-m", "worker_agent"]
    with process(*command, log=tmp_path / "agent.log"):
        yield


async def online(store: Ledger) -> None:
    """Return when that agent server can be sent sessions."""

    def look() -> bool:
        servers = store.run(reports.agent_servers())
        return any(each.online and each.deployment == STAGING for each in servers)

    await eventually(look)


async def test_sessions_reach_the_agent_servers_of_their_deployment_and_no_others(
    staging: None, services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for()
    await online(scenario.store)

    asked_for_none = scenario.request_dispatch("dsp_none", room_name="room-none")
    assert await dispatch_agent(services, asked_for_none.dispatch_id) is State.WAITING
    waits = scenario.run(dispatches.read("dsp_none"))
    assert waits is not None
    assert waits.failure_reason == "no_agent_online"
    assert "was asked for with no deployment" in waits.failure_message
    assert f"'{STAGING}'" in waits.failure_message
    assert "LIVEKIT_AGENT_DEPLOYMENT" in waits.failure_message

    scenario.request_dispatch(deployment=STAGING)
    assert await dispatch_agent(services, "dsp_1") in (State.DISPATCHED, State.ACCEPTED)
    record = await eventually(lambda: found if (found := scenario.look()).agent_identity else None)
    assert record is not None
    assert record.deployment == STAGING
    assert record.generation == 1
    # It has taken its place in the row of its own deployment, and left it.
    assert scenario.run(leases.on_their_way("acme", AGENT_NAME, STAGING)) == (0, None)


@pytest.mark.parametrize("generation", [1, 2])
async def test_livekit_is_asked_for_the_deployment(house: House, generation: int) -> None:
    clients = LiveKitClients(timeout_s=2.0)
    server = house.server
    livekit = clients.for_credentials(
        LiveKitCredentials(url=server.url, api_key=server.api_key, api_secret=server.api_secret)
    )
    dispatch = a_dispatch(room_name=house.room, generation=generation, deployment=STAGING)
    try:
        if generation == 1:
            await livekit.create_room(dispatch)
        else:
            await livekit.create_dispatch(dispatch)
    finally:
        await clients.aclose()

    listed = await house.lk.agent_dispatch.list_dispatch(house.room)
    # In a room that CreateDispatch makes, LiveKit asks for agents without a name as well.
    assert [each.deployment for each in listed if each.agent_name == AGENT_NAME] == [STAGING]


def test_a_token_that_carries_the_agent_carries_its_deployment() -> None:
    promised: NewDispatch = new_dispatch(deployment=STAGING)

    [agent] = delegated_agents(promised, requested_at_ms=1).agents

    assert agent.deployment == STAGING
