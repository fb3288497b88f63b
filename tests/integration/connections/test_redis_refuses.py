"""Is a Redis that answers errors told as one that is down, in its own words, with the remedy?"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import redis
from celery import Celery

from devstack import PROJECT_ROOT
from dispatcher.celery import redis_works
from dispatcher.connections.redis_cluster import refuse_cluster
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.ledger import keys, reports
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.client import AT_ONCE, Ledger
from dispatcher.ledger.guarding import Guard
from dispatcher.ledger.pubsub import Wakeups
from dispatcher.settings import CommonSettings
from tests.integration.web.test_web_restarts import environment
from tests.support.ownredis import OwnRedis
from tests.support.refusing import REFUSALS, refusing
from tests.support.values import eventually

REMEDIES = {
    "READONLY": "point REDIS_URL at the master",
    "NOREPLICAS": "bring its replicas back",
    "MISCONF": "free space",
    "OOM": "raise maxmemory",
    "NOPERM": "docs/redis.md",
    "BUSY": "SCRIPT KILL",
    "LOADING": "ready when that is done",
}
# By a worker that waits for a message. The others stop no waiting, or let it read and delete.
HEARD_WHILE_WAITING = ("READONLY", "NOREPLICAS", "MISCONF", "NOPERM")
NO_CLUSTER = "Redis Cluster is not supported"
WITHIN_S = 60.0
HIGHEST_PORT = 55_535  # of a node of a cluster, which listens at 10,000 more, too


def wait_until(look: Callable[[], bool], *, within_s: float = WITHIN_S) -> None:
    until = time.monotonic() + within_s
    while not look():
        assert time.monotonic() < until
        time.sleep(0.02)


@contextlib.contextmanager
def running(command: Sequence[str], redis_url: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of ours with that Redis; killed at the end, with all that it has started."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env={**environment(redis_url, 0), "USHER_REDIS_TIMEOUT_S": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def test_every_refusal_is_tested() -> None:
    assert REMEDIES.keys() == REFUSALS.keys()


@pytest.mark.parametrize("word", REFUSALS)
async def test_the_ledger_says_it_in_redis_own_word_with_the_remedy(
    word: str, own_common: CommonSettings, own_redis: OwnRedis, tmp_path: Path
) -> None:
    store = Ledger(own_common)
    async with AsyncLedger(own_common) as async_store:
        store.run(reports.probe())
        await async_store.run(reports.probe())
        with refusing(own_redis.url, word, tmp_path):
            errors = []
            with pytest.raises(LedgerUnavailable) as caught:
                store.run(reports.probe())
            errors.append(caught.value)
            assert not redis_works(store)  # so no probe has beat restarted
            with pytest.raises(LedgerUnavailable) as caught:
                await async_store.run(reports.probe())
            errors.append(caught.value)
            together = (async_store.run(reports.probe()) for _ in range(2))
            errors += [
                reply
                for reply in await asyncio.gather(*together, return_exceptions=True)
                if isinstance(reply, LedgerUnavailable)
            ]
        assert len(errors) == 4
        for error in errors:
            assert word in str(error), str(error)
            assert REMEDIES[word] in str(error)
            assert "script:" not in str(error)
            assert error.refusal.startswith(f"{word}: ")
        assert redis_works(store)  # and all is well again
        assert await async_store.run(reports.probe())
    store.close()


def test_a_redis_that_loads_its_data_is_not_waited_for(
    own_common: CommonSettings, own_redis: OwnRedis, tmp_path: Path
) -> None:
    """It looks at its connections every 0.2 s here, so each exchange with it takes as long."""
    store = Ledger(own_common)
    store.warm_up(4)
    took_s = []
    with refusing(own_redis.url, "LOADING", tmp_path):
        until = time.monotonic() + 3
        while time.monotonic() < until:
            began = time.monotonic()
            with pytest.raises(LedgerUnavailable, match="LOADING"):
                store.run(reports.ping())
            took_s.append(time.monotonic() - began)
            time.sleep(0.02)
    assert max(took_s) < 0.7, took_s
    assert statistics.median(took_s) < 0.05, took_s
    store.close()


def test_a_process_that_starts_while_redis_loads_its_data_is_soon_ready(
    own_common: CommonSettings, own_redis: OwnRedis, tmp_path: Path
) -> None:
    """Each of its connections takes 0.2 s: all of them together held the first requests up."""
    store = Ledger(own_common)
    with refusing(own_redis.url, "LOADING", tmp_path):
        began = time.monotonic()
        store.warm_up(AT_ONCE)
        assert time.monotonic() - began < 1
    store.close()


async def test_who_began_to_listen_while_redis_refused_hears_the_news_afterwards(
    own_common: CommonSettings, own_redis: OwnRedis, tmp_path: Path
) -> None:
    async with AsyncLedger(own_common) as store:
        wakeups = Wakeups(own_common, Guard(store))
        channel = keys.CAPACITY_CHANNEL
        async with wakeups.listen("dsp_1"):  # which has the connection made
            with refusing(own_redis.url, "BUSY", tmp_path):
                listening = wakeups.listen_on(channel)
                news = await listening.__aenter__()
            with redis.Redis.from_url(own_redis.url, decode_responses=True) as raw:
                await eventually(lambda: raw.publish(channel, "news") > 0)
            await asyncio.wait_for(news.wait(), 10)
            await listening.__aexit__(None, None, None)
        await wakeups.aclose()


@pytest.mark.apart
def test_a_celery_worker_lives_through_every_refusal_and_works_afterwards(
    own_redis: OwnRedis, tmp_path: Path
) -> None:
    log = tmp_path / "worker.log"
    command = [sys.executable, "-m", "celery", "--quiet", "-A"]
    command += ["tests.integration.worker.worker_events_app", "worker", "--pool", "threads"]
    command += ["--concurrency", "2", "--queues", "dispatch", "--without-mingle"]
    app = Celery("test", broker=own_redis.url, set_as_current=False)
    app.conf.task_default_queue = "dispatch"
    with running(command, own_redis.url, log) as worker:
        for word in REFUSALS:
            # A message that has been taken says that it is there, and is well again.
            trace = tmp_path / word
            app.send_task("touch", (str(trace),))
            wait_until(trace.exists)
            with refusing(own_redis.url, word, tmp_path):
                if word in HEARD_WHILE_WAITING:
                    wait_until(lambda word=word: word in log.read_text())  # type: ignore[misc]
            assert worker.poll() is None, log.read_text()
        app.send_task("touch", (str(tmp_path / "last"),))
        wait_until((tmp_path / "last").exists)
    app.close()
    assert "Unrecoverable" not in log.read_text()


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[OwnRedis]:
    server = OwnRedis(tmp_path)
    while server.port > HIGHEST_PORT:
        server = OwnRedis(tmp_path)
    server.start("--cluster-enabled", "yes")
    yield server
    server.stop()


def test_a_redis_cluster_is_refused_by_name(
    cluster: OwnRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REDIS_URL", cluster.url)
    settings = CommonSettings()

    with pytest.raises(ConfigurationError, match="REDIS_URL: Redis Cluster is not supported"):
        refuse_cluster(settings.redis_url.get_secret_value(), timeout_s=settings.redis_timeout_s)


def test_one_redis_and_one_that_does_not_answer_are_not_refused(
    own_redis: OwnRedis, own_common: CommonSettings
) -> None:
    refuse_cluster(own_common.redis_url.get_secret_value(), timeout_s=own_common.redis_timeout_s)
    own_redis.stop()
    refuse_cluster(own_common.redis_url.get_secret_value(), timeout_s=own_common.redis_timeout_s)


# As in the Procfile.
LINES = {
    "web": ["gunicorn", "--config", "python:web.gunicorn_conf", "web:create_app()"],
    "worker": ["celery", "--quiet", "-A", "dispatcher", "worker", "--pool", "threads"],
    "beat": ["celery", "--quiet", "-A", "dispatcher", "beat"],
    "flower": ["celery", "--quiet", "-A", "dispatcher", "flower"],
    "agent": ["python", "-m", "worker_agent"],
}


@pytest.mark.apart
@pytest.mark.parametrize("name", LINES)
def test_with_a_redis_cluster_every_process_ends_with_one_line(
    name: str, cluster: OwnRedis
) -> None:
    ran = subprocess.run(
        LINES[name],
        cwd=PROJECT_ROOT,
        env={
            **environment(cluster.url, 0),
            "USHER_AGENT_PORT": "0",
            "USHER_FLOWER_PORT": "0",
            "FLOWER_BASIC_AUTH": "user:password",
            "FLOWER_PERSISTENT": "false",
        },
        capture_output=True,
        text=True,
        timeout=60,
    )

    assert ran.returncode != 0
    said = [line for line in ran.stderr.splitlines() if NO_CLUSTER in line]
    assert len(said) == 1, ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
