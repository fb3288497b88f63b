"""Does everything that reads `REDIS_URL` follow the master that the Sentinels name?"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import runpy
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from celery import Celery
from kombu.exceptions import OperationalError

from devstack import PROJECT_ROOT
from dispatcher.connections import sentinel as sentinels
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import dispatches, keys, reports
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.celery_messages import Template
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.guarding import Guard
from dispatcher.ledger.pubsub import Wakeups
from dispatcher.settings import CommonSettings
from tests.acceptance.session import wait_for
from tests.conftest import free_port, wait_until_answers
from tests.support.ledgers import keep_templates
from tests.support.sentinels import PASSWORD, Server, Watched
from tests.support.values import eventually, new_dispatch

pytestmark = pytest.mark.timeout(120)

FAILS_OVER_WITHIN_S = 15.0
ANSWERS_WITHIN_S = 1.0  # the promise, with everything that may be silent


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """Three Redis servers and three Sentinels; a write wants a replica that follows."""
    directory = tmp_path_factory.mktemp("watched")

    def server(name: str, *, sentinel: bool = False) -> Server:
        return Server(
            host="127.0.0.1", port=free_port(), directory=directory / name, sentinel=sentinel
        )

    made = Watched(
        servers=[server(f"redis-{n}") for n in range(3)],
        sentinels=[server(f"sentinel-{n}", sentinel=True) for n in range(3)],
    )
    try:
        made.start(min_replicas=1)
        yield made
    finally:
        made.kill()


@pytest.fixture
def by_sentinel(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> CommonSettings:
    """The settings of a process; time-outs as by default, and all servers are there."""
    for each in (*watched.servers, *watched.sentinels):
        if each.process is None:
            each.start()
    wait_for("all of them", lambda: watched.all_there() or None, within_s=40)
    monkeypatch.setenv("REDIS_URL", watched.url)
    return CommonSettings()


@pytest.fixture
def store(by_sentinel: CommonSettings) -> Iterator[Ledger]:
    store = Ledger(by_sentinel)
    yield store
    store.close()


@pytest.fixture
def celery(by_sentinel: CommonSettings) -> Iterator[Celery]:
    """Celery with the settings of `celeryconfig.py`."""
    settings = runpy.run_path(str(PROJECT_ROOT / "celeryconfig.py"))
    app = Celery("test", set_as_current=False)
    app.conf.update({n: settings[n] for n in settings if n.islower() and n[0] != "_"})
    yield app
    sentinels.close(app.backend.client)
    app.close()


def written(store: Ledger, dispatch_id: str) -> bool | None:
    with contextlib.suppress(LedgerUnavailable):
        new = new_dispatch(dispatch_id, room_name=f"room-{dispatch_id}")
        return store.run(dispatches.create(new, due_in_s=2, detail={})).new
    return None


def killed(watched: Watched) -> tuple[Server, Server]:
    """The master that was killed, and who has taken over."""
    old = watched.master()
    old.kill()
    new = wait_for("a failover", lambda: watched.failed_over(old), within_s=FAILS_OVER_WITHIN_S)
    return old, new


def taken(celery: Celery) -> dict[str, Any]:
    """What kombu takes out of the dispatchers' queue, where the ledger has put it."""
    with celery.connection() as connection, connection.SimpleQueue("dispatch") as waiting:
        message = waiting.get(timeout=5)
        message.ack()
    [_, arguments, _] = message.payload
    found: dict[str, Any] = arguments
    return found


def role_of(server: Server) -> str | None:
    with contextlib.suppress(redis.RedisError), server.client() as raw:
        return str(raw.info("replication")["role"])
    return None


async def known(store: AsyncLedger, dispatch_id: str) -> bool:
    with contextlib.suppress(LedgerUnavailable):
        return await store.run(dispatches.read(dispatch_id)) is not None
    return False


@pytest.mark.parametrize("connected_before", [True, False])
def test_the_answer_comes_in_time_when_sentinels_and_redis_are_silent(
    connected_before: bool, watched: Watched, store: Ledger
) -> None:
    if connected_before:
        store.run(reports.ping())
    with contextlib.ExitStack() as silence:
        for each in (watched.master(), *watched.sentinels):
            silence.enter_context(each.frozen())
        for said in ("did not answer", "a moment ago"):
            began = time.monotonic()
            with pytest.raises(LedgerUnavailable, match=said):
                store.run(reports.ping())
            assert time.monotonic() - began < ANSWERS_WITHIN_S


def test_a_master_that_takes_no_writes_is_a_lost_connection_and_ends_no_worker(
    watched: Watched, store: Ledger, celery: Celery
) -> None:
    with (
        celery.connection() as connection,
        connection.SimpleQueue("verify") as waiting,
        watched.master().client() as raw,
    ):
        raw.config_set("min-replicas-to-write", 5)
        try:
            assert not written(store, "dsp_refused")
            # What a worker takes for a lost connection; as an answer it would end the process.
            with pytest.raises(redis.ConnectionError, match="NOREPLICAS"):
                waiting.get(timeout=1)
        finally:
            raw.config_set("min-replicas-to-write", 1)
    assert written(store, "dsp_taken")


async def test_the_doctor_hears_of_replicas(by_sentinel: CommonSettings) -> None:
    async with AsyncLedger(by_sentinel) as store:
        facts = await store.server_facts()
    assert (facts.by_sentinel, facts.replicas, facts.min_replicas) == (True, 2, 1)


def test_flower_reads_the_queues_of_the_master(
    watched: Watched, store: Ledger, tmp_path: Path, celery_templates: tuple[Template, ...]
) -> None:
    store._redis.delete("dispatch")
    keep_templates(store._redis, celery_templates)
    written(store, "dsp_for_flower")
    port = free_port()
    environ = {**os.environ, "REDIS_URL": watched.url, "FLOWER_PERSISTENT": "false"}
    environ |= {"FLOWER_PORT": str(port), "FLOWER_BASIC_AUTH": "looker:of-flower"}
    with (tmp_path / "flower.log").open("wb") as log:
        flower = subprocess.Popen(
            [sys.executable, "-m", "celery", "--quiet", "-A", "dispatcher", "flower"],
            cwd=PROJECT_ROOT,
            env=environ,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until_answers(f"http://127.0.0.1:{port}/")
        answer = httpx.get(
            f"http://127.0.0.1:{port}/api/queues/length", auth=("looker", "of-flower"), timeout=5
        )
    finally:
        flower.kill()
        flower.wait()
    assert {"name": "dispatch", "messages": 1} in answer.json()["active_queues"]
    assert PASSWORD not in (tmp_path / "flower.log").read_text()


def test_one_silent_sentinel_holds_nobody_up_for_long(watched: Watched, store: Ledger) -> None:
    with watched.sentinels[0].frozen():
        began = time.monotonic()
        assert store.run(reports.ping())
        assert time.monotonic() - began < 0.6


def test_a_master_that_has_become_a_replica_is_not_talked_to(
    watched: Watched, store: Ledger, by_sentinel: CommonSettings
) -> None:
    """Between its demotion and the Sentinels' noticing."""
    written(store, "dsp_demoted")
    old = watched.master()
    other = next(each for each in watched.servers if each is not old)
    with contextlib.ExitStack() as silence, old.client() as raw:
        for each in watched.sentinels[1:]:
            silence.enter_context(each.frozen())
        raw.replicaof(other.host, other.port)
        try:
            late = Ledger(by_sentinel)
            with pytest.raises(LedgerUnavailable), contextlib.closing(late):
                late.run(reports.ping())
            assert not written(store, "dsp_lost")
        finally:
            raw.replicaof("NO", "ONE")


def test_the_results_and_messages_are_refused_in_time_without_redis(
    watched: Watched, celery: Celery
) -> None:
    with contextlib.ExitStack() as silence:
        for each in (*watched.servers, *watched.sentinels):
            silence.enter_context(each.frozen())
        began = time.monotonic()
        with pytest.raises(OperationalError):
            celery.send_task("anything", queue="verify", retry=False, ignore_result=True)
        assert time.monotonic() - began < ANSWERS_WITHIN_S


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # Celery's own backend does
async def test_ledger_news_messages_and_results_follow_the_master(
    watched: Watched,
    store: Ledger,
    celery: Celery,
    by_sentinel: CommonSettings,
    celery_templates: tuple[Template, ...],
) -> None:
    store._redis.delete("dispatch", "verify")
    keep_templates(store._redis, celery_templates)
    async with (
        AsyncLedger(by_sentinel) as awaiting,
        contextlib.aclosing(Wakeups(by_sentinel, Guard(AsyncLedger(by_sentinel)))) as news,
        news.listen("dsp_after") as woken,
    ):
        assert written(store, "dsp_before")
        assert await known(awaiting, "dsp_before")
        assert taken(celery)["dispatch_id"] == "dsp_before"

        old, new = killed(watched)

        wait_for("a write", lambda: written(store, "dsp_after"), within_s=5)
        async with asyncio.timeout(5):
            while not await known(awaiting, "dsp_after"):
                await asyncio.sleep(0.05)
        assert await known(awaiting, "dsp_before")
        assert taken(celery)["dispatch_id"] == "dsp_after"

        def told() -> bool:
            store._redis.publish(keys.wake_channel("dsp_after"), "queued")
            return woken.is_set()

        assert await eventually(told)
    sent = celery.send_task("anything", queue="verify", retry=False)
    celery.backend.store_result(sent.id, "done", "SUCCESS")
    with new.client() as raw:
        [message] = raw.lrange("verify", 0, -1)
        assert json.loads(message)["headers"]["id"] == sent.id
        assert raw.exists(f"celery-task-meta-{sent.id}")
    assert sent.get(timeout=5) == "done"

    # The old one comes back as the master that it was, until the Sentinels correct it.
    old.start()
    wait_for("its return", lambda: role_of(old), within_s=10)
    assert written(store, "dsp_later")
    with new.client() as raw:
        assert raw.exists(keys.record("dsp_later"))
