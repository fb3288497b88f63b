"""Can who has a LiveKit key of one client have an agent server take another client's sessions?

acme's LiveKit offers jobs that claim globex's dispatches, and an agent server that says of no
client that it serves that one alone is registered there.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest
from livekit import api

from dispatcher.domain.job_attributes import DELEGATED, job_attributes
from dispatcher.ledger import dispatches
from tests.acceptance.session import active_agents, run_step, wait_for
from tests.faults.agents import agent_server
from tests.faults.stacks import frozen
from tests.support.values import new_dispatch

from .two import AGENT, Tenant

pytestmark = pytest.mark.apart

REFUSED = b"whose LiveKit server is another one"
SURPLUS = b"surplus agent, refused (wrong_client)"


def forged(dispatch_id: str) -> Mapping[str, str]:
    """What the job claims: LiveKit was to bring globex's agent while Redis was away."""
    claimed = new_dispatch(dispatch_id, client_id="globex")
    return job_attributes(claimed, request_type=DELEGATED, requested_at_ms=1)


def have_offered(tenant: Tenant, room: str, attributes: Mapping[str, str]) -> None:
    """Have a tenant's LiveKit offer a job, with its own key and without Usher."""
    stack = tenant.stack

    async def ask() -> None:
        async with api.LiveKitAPI(
            stack.livekit_url, stack.livekit_api_key, stack.livekit_api_secret, failover=False
        ) as livekit:
            wanted = api.CreateAgentDispatchRequest(
                agent_name=AGENT, room=room, attributes=attributes
            )
            await livekit.agent_dispatch.create_dispatch(wanted)

    asyncio.run(ask())


def wait_for_line(log: Path, text: bytes) -> None:
    wait_for(f"{text!r} in the log", lambda: text in log.read_bytes() or None, within_s=30)


@pytest.mark.parametrize("redis_is_away", [False, True])
def test_a_job_that_claims_anothers_room_does_not_take_it(
    acme: Tenant, globex: Tenant, tmp_path: Path, redis_is_away: bool
) -> None:
    log, name = tmp_path / "agent.log", secrets.token_hex(4)
    room, dispatch_id = f"room-of-globex-{name}", f"dsp_forged_{name}"
    stack = acme.stack
    with ExitStack() as away:
        if redis_is_away:  # from before its start, so that it does not know whose LiveKit this is
            away.enter_context(frozen(*stack.pids("redis")))
        with agent_server(stack, log, name=AGENT):
            have_offered(acme, room, forged(dispatch_id))
            if redis_is_away:
                wait_for_line(log, b"job accepted")
                away.close()
            wait_for_line(log, SURPLUS if redis_is_away else REFUSED)

    assert run_step(stack, dispatches.read(dispatch_id)) is None
    with (caller := globex.caller()).http:
        answer = caller.post(room_name=room)
        assert answer["dispatch_id"] != dispatch_id
        caller.wait_for_state(answer["dispatch_id"], "joined", within_s=20)
        caller.http.delete(f"/api/v1/dispatches/{answer['dispatch_id']}")
    assert active_agents(stack, room) == {room: []}
    wait_for(
        "no agent of globex's",
        lambda: active_agents(globex.stack, room)[room] == [] or None,
        within_s=15,
    )
