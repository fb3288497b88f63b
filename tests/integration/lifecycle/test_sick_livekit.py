"""Does a LiveKit server that hangs hurt only its own client?

The worker's arrangement without Celery: 64 threads that hand coroutines to one event loop and wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pytest
import redis

from dispatcher.clients.client_registry import ClientRegistry
from dispatcher.domain import state_machine
from dispatcher.domain.models import State
from dispatcher.errors import DispatchFailed, LiveKitAway, Postponed, TransientLiveKitError
from dispatcher.ledger import dispatches, endings, reports
from dispatcher.ledger.advance import Advance, Times
from dispatcher.ledger.celery_messages import DISPATCH_TASK
from dispatcher.ledger.client import Ledger
from dispatcher.lifecycle import cleanup, dispatching, redispatching, supervision
from dispatcher.lifecycle.client_limits import Lanes
from dispatcher.lifecycle.services import Services
from dispatcher.livekit.transport import MAX_CALLS
from dispatcher.publish import wake_worker
from dispatcher.worker import heartbeat
from tests.support.house import House, OpenServices
from tests.support.scenario import Scenario
from tests.support.sockets import LossyProxy, answering, listening, never_answering, read_request
from tests.support.values import a_dispatch, a_server, eventually, keyspace, new_dispatch

THREADS = 64
SICK_DISPATCHES = 100
LIMIT = 32
pytestmark = pytest.mark.usefixtures("agent_server")


@dataclass
class Worker:
    """Threads that each run one task at a time, as Celery's pool does."""

    loop: asyncio.AbstractEventLoop
    services: Services
    pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(THREADS))

    def wake(self, dispatch_id: str) -> Future[float]:
        return self.pool.submit(self._task, dispatch_id)

    def wake_worker(self, task: str, dispatch_id: str, room: str) -> None:
        self.wake(dispatch_id)

    def _task(self, dispatch_id: str) -> float:
        """Dispatch it; returns when that was done."""
        coroutine = dispatching.dispatch_agent(self.services, dispatch_id)
        with contextlib.suppress(TransientLiveKitError, DispatchFailed, Postponed):
            asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()
        return time.monotonic()


def two_clients(services: Services, *, sick_port: int) -> Services:
    """`acme`, which is well, and `sick`, whose LiveKit is at that port."""
    (acme,) = services.clients.clients
    livekit = replace(acme.livekit, url=f"ws://127.0.0.1:{sick_port}")
    sick = replace(acme, client_id="sick", livekit=livekit)
    return replace(services, clients=ClientRegistry(clients=(acme, sick)))


async def dispatch_ms(worker: Worker, store: Ledger, prefix: str, count: int) -> list[float]:
    """How long it takes from the wake-up of one of acme's until LiveKit has been asked."""
    took = []
    for number in range(count):
        name = f"{prefix}-{number}"
        store.run(dispatches.create(new_dispatch(name, room_name=name), due_in_s=60, detail={}))
        started = time.monotonic()
        done = await asyncio.wrap_future(worker.wake(name))
        took.append((done - started) * 1000)
        record = store.run(dispatches.read(name))
        assert record is not None
        assert record.state is State.DISPATCHED
    return took


async def test_a_hundred_dispatches_of_a_client_whose_livekit_hangs_delay_nobody_else(
    services_for: OpenServices, store: Ledger, raw: redis.Redis
) -> None:
    # Long enough for a busy machine to measure in, before the first time-out.
    services = await services_for(USHER_LIVEKIT_TIMEOUT_S="8")
    store.run(reports.report_agent_server(a_server(slots=1000), ttl_s=600))
    async with listening(never_answering) as port:
        two = two_clients(services, sick_port=port)
        worker = Worker(asyncio.get_running_loop(), two)
        worker.services = replace(two, dispatching=Lanes(limit=LIMIT, wake=worker.wake_worker))
        before = await dispatch_ms(worker, store, "before", 10)
        tasks = []
        for number in range(SICK_DISPATCHES):
            new = new_dispatch(f"sick-{number}", client_id="sick", room_name=f"room-{number}")
            store.run(dispatches.create(new, due_in_s=60, detail={}))
            tasks.append(worker.wake(f"sick-{number}"))
        # The rest hang.
        await eventually(lambda: sum(t.done() for t in tasks) == SICK_DISPATCHES - LIMIT)

        during = await dispatch_ms(worker, store, "during", 10)

        assert sum(task.done() for task in tasks) == SICK_DISPATCHES - LIMIT  # still
        # Every one of the sick client's has a true reason within one time-out and a little, and
        # nobody has waited for the rest of the tries.
        await eventually(lambda: reasons(raw) == {"livekit_unreachable"})
        await asyncio.to_thread(worker.pool.shutdown)
    # A fifth of the 350 ms that an agent takes to join at the least, on a machine that is idle.
    assert statistics.median(during) < 2 * statistics.median(before) + 70, (before, during)
    assert max(during) < 4000, during  # not even one that waits for a time-out


async def test_what_its_client_has_no_thread_for_is_untouched_and_woken_when_one_is_done(
    services: Services, store: Ledger, raw: redis.Redis
) -> None:
    woken: list[tuple[str, str, str]] = []
    async with listening(never_answering) as port:
        two = two_clients(services, sick_port=port)
        lanes = Lanes(limit=1, wake=lambda *message: woken.append(message))
        two = replace(two, dispatching=lanes)
        for name in ("first", "second"):
            new = new_dispatch(name, client_id="sick", room_name=f"room-{name}")
            store.run(dispatches.create(new, due_in_s=60, detail={}))
        first = asyncio.create_task(dispatching.dispatch_agent(two, "first"))
        await eventually(lambda: raw.hget("usher:dispatch:first", "state") == "dispatching")
        before = keyspace(raw)

        for _ in range(3):  # the sweeper's messages, too
            with pytest.raises(Postponed):  # or Celery would go on to the verification
                await dispatching.dispatch_agent(two, "second")

        assert keyspace(raw) == before
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await eventually(lambda: woken)
        await asyncio.sleep(0.1)
        assert woken == [(DISPATCH_TASK, "second", "room-second")]  # once


@pytest.mark.parametrize(
    ("task", "queue"),
    [
        (supervision.supervise, "sweep"),
        (cleanup.clear_away, "verify"),
        (redispatching.redispatch_joined, "dispatch"),
    ],
)
async def test_who_looks_after_sessions_holds_no_more_threads_than_who_begins_them(
    task: Callable[[Services, str], Awaitable[State]],
    queue: str,
    services: Services,
    store: Ledger,
    raw: redis.Redis,
) -> None:
    async with listening(never_answering) as port:
        two = two_clients(services, sick_port=port)
        lanes = Lanes(limit=1, wake=wake_worker)
        two = replace(two, dispatching=lanes, verifying=lanes)
        for name in ("first", "second"):
            new = new_dispatch(name, client_id="sick", room_name=f"room-{name}")
            store.run(dispatches.create(new, due_in_s=60, detail={}))
            raw.delete("dispatch")
            made = store.run(dispatches.read(name))
            assert made is not None
            store.run(dispatches.advance(Advance(made, state_machine.DISPATCH_STARTED)))
            if task is cleanup.clear_away:
                store.run(endings.cancel(made, retention_s=60))
            else:
                store.run(
                    dispatches.advance(Advance(made, state_machine.JOINED, times=Times(lease_s=60)))
                )
        raw.delete("verify")
        first = asyncio.create_task(task(two, "first"))  # type: ignore[arg-type]
        await eventually(lambda: lanes.in_hand["sick"] == 1)
        before = keyspace(raw)

        await asyncio.wait_for(task(two, "second"), 1.0)  # LiveKit's time-out is 2 s

        assert keyspace(raw) == before
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        (message,) = await eventually(lambda: raw.lrange(queue, 0, -1))
        headers = json.loads(message)["headers"]
        assert headers["task"] == f"dispatcher.tasks.{task.__name__}"
        assert "'second'" in headers["kwargsrepr"]


def reasons(raw: redis.Redis) -> set[str | None]:
    return {
        raw.hget(f"usher:dispatch:sick-{number}", "failure_reason")
        for number in range(SICK_DISPATCHES)
    }


async def test_with_an_open_circuit_a_dispatch_waits_with_the_true_reason_and_no_try(
    services_for: OpenServices, scenario: Scenario
) -> None:
    async with listening(never_answering) as port:
        services = await services_for(
            LIVEKIT_URL=f"ws://127.0.0.1:{port}", USHER_LIVEKIT_TIMEOUT_S="0.05"
        )
        livekit = services.livekit(scenario.request_dispatch())
        assert livekit.away == ""
        await asyncio.gather(*(livekit.look("x") for _ in range(10)), return_exceptions=True)

        assert await dispatching.dispatch_agent(services, "dsp_1") is State.WAITING

        record = scenario.look()
        assert (record.failure_reason, record.generation) == ("livekit_unreachable", 2)
        assert record.failure_message == livekit.away != ""
        events = len(record.timeline)
        assert await dispatching.dispatch_agent(services, "dsp_1") is State.WAITING
        assert (scenario.look().generation, len(scenario.look().timeline)) == (
            2,
            events,
        )  # no news, no noise


async def test_the_heartbeats_probe_closes_the_circuit(
    services_for: OpenServices, house: House
) -> None:
    target = int(house.server.url.rpartition(":")[2])
    proxy = LossyProxy(target_port=target, losing=b"ListParticipants", times=10)
    async with listening(proxy) as port:
        services = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{port}")
        livekit = services.livekit(a_dispatch())
        for _ in range(10):
            with pytest.raises(TransientLiveKitError):
                await livekit.look("x")
        with pytest.raises(LiveKitAway):
            await livekit.look("x")

        await livekit.probe()

        assert livekit.away == ""
        assert (await livekit.look("x")).people == 0


async def test_no_more_calls_at_once_than_there_are_connections_and_none_waits_for_long(
    services_for: OpenServices,
) -> None:
    asked = 0

    async def counting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await read_request(reader)
        asked += 1
        await never_answering(reader, writer)

    async with listening(counting) as port:
        services = await services_for(
            LIVEKIT_URL=f"ws://127.0.0.1:{port}", USHER_LIVEKIT_TIMEOUT_S="2"
        )
        livekit = services.livekit(a_dispatch())
        started = time.monotonic()
        calls = (livekit.look("x") for _ in range(3 * MAX_CALLS))
        errors = await asyncio.gather(*calls, return_exceptions=True)

    assert time.monotonic() - started < 3.9  # not even two time-outs
    # The first time-outs hand a few connections on; then the circuit is open.
    assert MAX_CALLS <= asked < 2 * MAX_CALLS
    assert {isinstance(error, TransientLiveKitError) for error in errors} == {True}


async def test_a_redirect_is_refused_and_not_followed(services_for: OpenServices) -> None:
    asked = []

    async def inside(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())

    async with listening(inside) as inner:

        async def redirecting(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                f"HTTP/1.1 307 X\r\nLocation: http://127.0.0.1:{inner}/\r\n"
                "Content-Length: 0\r\n\r\n".encode()
            )
            await writer.drain()

        async with listening(redirecting) as port:
            services = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{port}")
            with pytest.raises(Exception, match="redirect"):
                await services.livekit(a_dispatch()).look("x")
    assert asked == []


async def test_an_answer_of_whatever_kind_leaves_the_circuit_closed(
    services_for: OpenServices,
) -> None:
    async with listening(answering(503, "{}")) as port:
        services = await services_for(LIVEKIT_URL=f"ws://127.0.0.1:{port}")
        livekit = services.livekit(a_dispatch())
        for _ in range(20):
            with pytest.raises(TransientLiveKitError):
                await livekit.look("x")
        assert livekit.away == ""


async def test_a_livekit_that_hangs_makes_no_other_look_silent(
    services_for: OpenServices, raw: redis.Redis
) -> None:
    services = await services_for(USHER_LIVEKIT_TIMEOUT_S="20")
    async with listening(never_answering) as port:
        two = two_clients(services, sick_port=port)
        acme, sick = two.clients.clients
        two = replace(two, clients=ClientRegistry(clients=(sick, acme)))
        beating = asyncio.create_task(heartbeat.beat(two, ["verify"]))

        # Less than the time-out of the one that hangs, which comes first.
        await eventually(lambda: raw.hexists("usher:alive", "livekit:acme"), within_s=15)

        assert not raw.hexists("usher:alive", "livekit:sick")
        beating.cancel()
        await asyncio.gather(beating, return_exceptions=True)
