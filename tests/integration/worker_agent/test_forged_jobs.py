"""What does an agent server believe of a job, which anybody with its LiveKit's key can have made?

acme has a LiveKit server of its own, and so has globex; the agent server is registered with acme's,
and says of no client that it serves that one alone.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import redis
from livekit.agents import JobRequest

from dispatcher.clients.models import Client, LiveKitCredentials
from dispatcher.domain import models, state_machine
from dispatcher.domain.models import Dispatch
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import client_servers, dispatches
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.client import Ledger
from dispatcher.settings import CommonSettings
from tests.support.offers import ACCEPT, REJECT, REJECT_EVERYWHERE, Offered, identity
from tests.support.ownredis import OwnRedis
from tests.support.values import keyspace, new_dispatch
from web.state.accepted_dispatches import Promises
from web.state.promise_files import Spool
from worker_agent.program_on_request import ask_program
from worker_agent.request_filter import RequestFilter

SECRETS = {name: f"{name}-secret-of-at-least-32-characters" for name in ("acme", "globex")}


def a_client(client_id: str, *, url: str = "", key: str = "devkey", secret: str = "") -> Client:
    """Each key has the same name: what it is called proves nothing."""
    livekit = LiveKitCredentials(
        url=url or f"wss://{client_id}.example",
        api_key=key,
        api_secret=secret or SECRETS[client_id],
    )
    return Client(
        client_id=client_id,
        livekit=livekit,
        agent_names=("session-agent-rag",),
        container="",
        deadline_s=20,
    )


ACME, GLOBEX = a_client("acme"), a_client("globex")


@pytest.fixture(autouse=True)
def registered_with_acme(monkeypatch: pytest.MonkeyPatch) -> None:
    """By an address inside the cluster, as agent servers often are."""
    monkeypatch.setenv("LIVEKIT_URL", "ws://livekit-of-acme:7880")
    monkeypatch.setenv("LIVEKIT_API_KEY", "devkey")
    monkeypatch.setenv("LIVEKIT_API_SECRET", SECRETS["acme"])


@pytest.fixture
def told(store: Ledger) -> None:
    """A worker has said where each client's LiveKit is."""
    store.run(client_servers.tell([ACME, GLOBEX]))


@pytest.fixture
def of_globex(store: Ledger) -> Dispatch:
    """`dsp_1`, on its way to an agent server of globex's."""
    store.run(dispatches.create(new_dispatch(client_id="globex"), due_in_s=2, detail={}))
    dispatch = read(store)
    store.run(dispatches.advance(Advance(dispatch, state_machine.DISPATCH_STARTED, due_in_s=12)))
    store.run(dispatches.advance(Advance(dispatch, state_machine.DISPATCH_CREATED, due_in_s=7)))
    return dispatch


async def asked_by(store: AsyncLedger, **changes: Any) -> RequestFilter:
    """A filter that has heard whose LiveKit this is, however busy the machine is."""
    opened = RequestFilter(identity(**changes), store)
    for _ in range(100):
        with contextlib.suppress(LedgerUnavailable):
            await opened.tenants.refresh()
            return opened
    raise AssertionError("Redis does not answer")


def read(store: Ledger) -> Dispatch:
    dispatch = store.run(dispatches.read("dsp_1"))
    assert dispatch is not None
    return dispatch


@pytest.mark.usefixtures("told")
async def test_a_delegated_job_for_anothers_room_writes_nothing(
    async_store: AsyncLedger, raw: redis.Redis
) -> None:
    before = keyspace(raw)
    forged = Offered(client_id="globex", request_type="delegated")

    await (await asked_by(async_store))(forged.request)

    assert forged.answers == [REJECT]
    assert keyspace(raw) == before
    assert not [*raw.scan_iter("usher:metrics:agent:globex:*")]  # nor does it spoil its numbers


@pytest.mark.usefixtures("told", "of_globex")
@pytest.mark.parametrize("request_type", ["dispatch", "delegated"])
@pytest.mark.parametrize("claims", ["globex", "acme"])
@pytest.mark.parametrize("full", [False, True])
async def test_nobody_claims_anothers_dispatch_by_its_id(
    async_store: AsyncLedger, raw: redis.Redis, claims: str, request_type: str, full: bool
) -> None:
    before = keyspace(raw)
    forged = Offered(client_id=claims, request_type=request_type)

    await (await asked_by(async_store, slots=0 if full else 2))(forged.request)

    assert forged.answers in ([REJECT], [REJECT_EVERYWHERE])
    assert keyspace(raw) == before


@pytest.mark.usefixtures("told", "of_globex")
@pytest.mark.parametrize("claims", ["globex", "acme"])
async def test_what_a_program_does_not_want_does_not_end_anothers_session(
    async_store: AsyncLedger, raw: redis.Redis, claims: str
) -> None:
    async def decline(request: JobRequest) -> None:
        await request.reject()

    before = keyspace(raw)
    forged = Offered(client_id=claims)

    await ask_program(decline, await asked_by(async_store), forged.request)

    assert forged.answers == [REJECT_EVERYWHERE]
    assert keyspace(raw) == before


def test_no_step_changes_a_record_in_another_clients_name(
    store: Ledger, of_globex: Dispatch, raw: redis.Redis
) -> None:
    claimed = models.DispatchRef(
        dispatch_id="dsp_1",
        client_id="acme",
        room_name=of_globex.room_name,
        agent_name=of_globex.agent_name,
        generation=1,
    )
    before = keyspace(raw)

    for transition in (
        state_machine.ACCEPTED,
        state_machine.REJECTED,
        state_machine.FAILED,
        state_machine.AGENT_CRASHED,
    ):
        done = store.run(
            dispatches.advance(
                Advance(claimed, transition, due_in_s=1, times=Times(retention_s=60))
            )
        )
        assert (done.outcome, done.state) == ("unknown", "")  # as for an id that never was
    assert keyspace(raw) == before


async def test_what_was_known_before_holds_while_redis_is_away(
    own_redis: OwnRedis, own_common: CommonSettings
) -> None:
    async with AsyncLedger(own_common) as store:
        await store.run(client_servers.tell([ACME, GLOBEX]))
        asked = await asked_by(store)
        own_redis.stop()
        forged = Offered("AJ_1", client_id="globex", request_type="delegated")
        real = Offered("AJ_2", client_id="acme", request_type="delegated")
        await asked(forged.request)
        await asked(real.request)

    assert (forged.answers, real.answers) == ([REJECT], [ACCEPT])


async def takes(async_store: AsyncLedger, client_id: str, *, of: str = "") -> bool:
    """Whether an agent server (`of` that client, by its settings) takes a job of that client's."""
    offered = Offered(client_id=client_id, request_type="delegated", dispatch_id=f"dsp_{client_id}")
    await (await asked_by(async_store, client_id=of))(offered.request)
    return offered.answers == [ACCEPT]


@pytest.mark.usefixtures("told")
async def test_the_clients_of_its_own_livekit_are_served(async_store: AsyncLedger) -> None:
    assert await takes(async_store, "acme")
    assert not await takes(async_store, "globex")
    assert await takes(async_store, "globex", of="globex")  # the operator says so


async def test_clients_that_share_a_livekit_are_all_served(
    store: Ledger, async_store: AsyncLedger
) -> None:
    sharing = a_client("sharing", url=ACME.livekit.url, key="another", secret="x" * 40)
    store.run(client_servers.tell([ACME, GLOBEX, sharing]))

    assert await takes(async_store, "sharing")


async def test_an_agent_server_with_a_key_of_its_own_goes_by_the_address(
    store: Ledger, async_store: AsyncLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.run(client_servers.tell([ACME, GLOBEX]))
    monkeypatch.setenv("LIVEKIT_API_SECRET", "y" * 40)
    assert not await takes(async_store, "acme")  # nobody knows whose LiveKit that is

    monkeypatch.setenv("LIVEKIT_URL", "https://acme.example:443")

    assert await takes(async_store, "acme")
    assert not await takes(async_store, "globex")


async def test_the_only_client_is_served_by_whatever_address_and_key(
    store: Ledger, async_store: AsyncLedger
) -> None:
    assert await takes(async_store, "globex")  # no worker has said anything yet
    store.run(client_servers.tell([GLOBEX]))
    assert await takes(async_store, "globex")


@pytest.mark.usefixtures("told")
async def test_a_client_that_is_added_is_served_at_once(
    store: Ledger, async_store: AsyncLedger
) -> None:
    asked = await asked_by(async_store)
    store.run(client_servers.tell([a_client("sharing", url=ACME.livekit.url, secret="x" * 40)]))
    offered = Offered(client_id="sharing", request_type="delegated")

    await asked(offered.request)

    assert offered.answers == [ACCEPT]


def test_what_redis_has_of_a_livekit_is_no_secret(
    store: Ledger, raw: redis.Redis, told: None
) -> None:
    written = raw.hgetall("usher:clients")
    assert set(written) == {"acme", "globex"}
    assert not any(secret in text for secret in SECRETS.values() for text in written.values())


async def test_an_id_that_another_client_has_taken_first_comes_back_to_whom_it_was_promised(
    store: Ledger, async_store: AsyncLedger, told: None, tmp_path: Path
) -> None:
    """The id of a session that was promised without Redis is no secret: its room sees it."""
    promises = Promises(store, retention_s=500, spool=Spool(tmp_path / "spool"))
    promises.delegate(new_dispatch(client_id="globex"))
    forged = Offered(client_id="acme", request_type="delegated")
    await (await asked_by(async_store))(forged.request)

    promises.look()
    promises.close()

    found = read(store)
    assert (found.client_id, found.state, found.job_id) == ("globex", "delegated", "")
    assert found.attempts == ()
