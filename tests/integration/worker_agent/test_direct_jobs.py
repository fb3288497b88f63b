"""Can a program tell a job that Usher has placed from one that LiveKit has given?

A real agent server of livekit-agents, with jobs in threads, a real LiveKit and a real Redis.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import jwt
import pytest
import pytest_asyncio
from google.protobuf.json_format import MessageToDict
from livekit.agents import AgentServer, JobContext, JobExecutorType, JobRequest

from dispatcher.domain.models import State
from dispatcher.ledger import dispatches, reports
from dispatcher.lifecycle import dispatching
from dispatcher.lifecycle.services import Services
from tests.support.house import OpenServices
from tests.support.scenario import Scenario
from tests.support.values import AGENT_NAME, WAIT_S, eventually
from worker_agent.program import rtc_session

# Each of these differs from job to job, of either kind.
OWN: tuple[str, ...] = ("id", "dispatchId", "room", "state", "attributes")


@dataclass
class Seen:
    """What the program saw of its jobs, in order."""

    jobs: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    attributes: list[dict[str, str]] = field(default_factory=list)
    permissions: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    declines: bool = False


SEEN = Seen()


async def entrypoint(ctx: JobContext) -> None:
    async def ended(reason: str) -> None:
        SEEN.ended.append(reason)

    ctx.add_shutdown_callback(ended)
    await ctx.connect()
    me = ctx.room.local_participant
    SEEN.jobs.append(MessageToDict(ctx.job))
    SEEN.claims.append(jwt.decode(ctx._info.token, options={"verify_signature": False}))
    SEEN.attributes.append(dict(me.attributes))
    SEEN.permissions.append(f"{me.identity.partition('AJ_')[0]} {me.name} {me.metadata} {me.kind}")


async def on_request(request: JobRequest) -> None:
    if SEEN.declines:
        await request.reject(terminate=False)
    else:
        await request.accept(name="Ada", metadata="hers", attributes={"colour": "red"})


@pytest_asyncio.fixture
async def server(
    services_for: OpenServices, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[AgentServer]:
    global SEEN
    SEEN = Seen()
    await services_for()  # LiveKit's address, in the environment
    monkeypatch.setenv("USHER_AGENT_REPORT_S", "60")
    monkeypatch.setenv("USHER_AGENT_CONTAINER", "box-1")
    server = AgentServer(
        job_executor_type=JobExecutorType.THREAD, port=0, host="127.0.0.1", num_idle_processes=1
    )
    rtc_session(server, entrypoint, agent_name=AGENT_NAME, on_request=on_request)
    running = asyncio.create_task(server.run())
    yield server
    await server.aclose()
    await running
    ours = ("direct-jobs", "reporter", "summaries")
    for task in [each for each in asyncio.all_tasks() if each.get_name() in ours]:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def dispatched(services: Services, scenario: Scenario, dispatch_id: str, room: str) -> None:
    """Dispatch a session to the agent server, and wait until its program has connected."""
    await eventually(
        lambda: any(each.online for each in scenario.store.run(reports.agent_servers()))
    )
    scenario.request_dispatch(dispatch_id, room_name=room, agent_metadata='{"for": "it"}')
    assert await dispatching.dispatch_agent(services, dispatch_id) is State.DISPATCHED


async def test_a_placed_job_is_as_livekits_own_job_to_its_program(
    server: AgentServer, services_for: OpenServices, scenario: Scenario
) -> None:
    room = scenario.house.room
    await dispatched(await services_for(USHER_PLACEMENT="livekit"), scenario, "dsp_1", room)
    await eventually(lambda: len(SEEN.jobs) == 1)
    await dispatched(await services_for(USHER_PLACEMENT="direct"), scenario, "dsp_2", f"{room}-2")
    await eventually(lambda: len(SEEN.jobs) == 2)

    (theirs, ours), (their_claims, our_claims) = SEEN.jobs, SEEN.claims
    assert "dispatchId" in theirs
    assert "dispatchId" not in ours
    assert len(ours["id"]) == len(theirs["id"])
    assert _but(ours, *OWN) == _but(theirs, *OWN)
    assert set(ours["attributes"]) == set(theirs["attributes"])
    assert set(ours["room"]) == set(theirs["room"])
    assert ours["room"]["sid"].startswith("RM_")
    times = ("nbf", "exp", "iat", "sub", "identity")
    assert _but(our_claims, *times, "attributes", "video") == _but(
        their_claims, *times, "attributes", "video"
    )
    assert our_claims["video"] == their_claims["video"] | {"room": f"{room}-2"}
    assert set(our_claims) == set(their_claims)
    assert our_claims["sub"] == our_claims["identity"] == f"agent-{ours['id']}"
    assert our_claims["exp"] - our_claims["nbf"] == their_claims["exp"] - their_claims["nbf"]
    for claims in (our_claims, their_claims):
        claims["attributes"].pop("usher.dispatch_id")
    assert our_claims["attributes"] == their_claims["attributes"]
    assert our_claims["attributes"]["lk.agent_name"] == AGENT_NAME
    assert _but(SEEN.attributes[0], "usher.dispatch_id") == _but(
        SEEN.attributes[1], "usher.dispatch_id"
    )
    assert SEEN.permissions[0] == SEEN.permissions[1]
    record = scenario.store.run(dispatches.read("dsp_2"))
    assert record is not None
    assert record.attempt.placed


async def test_a_placed_job_ends_with_its_room(
    server: AgentServer, services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_PLACEMENT="direct")
    await dispatched(services, scenario, "dsp_1", scenario.house.room)
    await eventually(lambda: len(SEEN.jobs) == 1)
    assert len(server.active_jobs) == 1

    await scenario.house.empty()

    await eventually(lambda: len(SEEN.ended) == 1)
    await eventually(lambda: not server.active_jobs)


async def test_a_program_that_rejects_is_in_the_record_and_is_not_asked_again(
    server: AgentServer, services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_PLACEMENT="direct")
    SEEN.declines = True

    await dispatched(services, scenario, "dsp_1", scenario.house.room)

    await eventually(lambda: scenario.look().state is State.OFFERED)
    assert scenario.look().attempt.reason == "declined_by_program"


async def test_a_draining_agent_server_starts_no_placed_job(
    server: AgentServer, services_for: OpenServices, scenario: Scenario
) -> None:
    services = await services_for(USHER_PLACEMENT="direct")
    await eventually(
        lambda: any(each.online for each in scenario.store.run(reports.agent_servers()))
    )
    (report,) = scenario.store.run(reports.agent_servers())
    await asyncio.wait_for(server.drain(), WAIT_S)
    assert not scenario.store.run(reports.agent_servers())[0].draining  # it has not said so yet
    scenario.request_dispatch(room_name=scenario.house.room)

    assert await dispatching.dispatch_agent(services, "dsp_1") is State.DISPATCHED

    key = f"usher:jobs:{report.agent_server_id}"
    await eventually(lambda: not scenario.raw.exists(key))
    await asyncio.sleep(0.3)
    assert not SEEN.jobs
    assert scenario.look().state is State.DISPATCHED  # until the verification passes it by


def _but(fields: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if name not in names}
