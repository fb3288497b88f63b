"""What does a worker tell Flower: everything, soon, and not each thing by itself?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

from devstack import PROJECT_ROOT
from dispatcher.worker.consumer import FLUSH_AFTER_S
from tests.support.ownredis import OwnRedis

TASK_EVENTS = ("task-received", "task-started", "task-succeeded")
COUNT = 30
SOON_S = 10.0  # on a busy machine


class Told:
    """The events that a worker publishes, as Flower gets them."""

    def __init__(self, url: str) -> None:
        self._listening = redis.Redis.from_url(url).pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._listening.psubscribe("*celeryev*")
        self.messages: list[list[dict[str, Any]]] = []  # those about tasks
        self.online = False

    def of(self, kind: str) -> Counter[str]:
        """How often each task's event of that kind has been told."""
        events = (event for message in self.messages for event in message)
        return Counter(event["uuid"] for event in events if event["type"] == kind)

    def wait(self, until: Callable[[], bool]) -> None:
        """Take what is told until that is so."""
        ends = time.monotonic() + SOON_S
        while not until():
            assert time.monotonic() < ends, f"told only {self.messages}"
            message = self._listening.get_message(timeout=0.05)
            if message is not None:
                body = json.loads(json.loads(message["data"])["body"])
                events = body if isinstance(body, list) else [body]
                self.online |= events[0]["type"] == "worker-online"
                if events[0]["type"].startswith("task-"):
                    self.messages.append(events)


@pytest.fixture
def told(own_redis: OwnRedis) -> Told:
    return Told(own_redis.url)


@pytest.fixture
def worker(own_redis: OwnRedis, told: Told, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that is ready."""
    command = [
        sys.executable,
        "-m",
        "celery",
        "--quiet",
        "-A",
        "tests.integration.worker.worker_events_app",
    ]
    command += ["worker", "--pool", "threads", "--concurrency", "4", "--queues", "dispatch"]
    command += ["--without-mingle", "--without-gossip"]
    with (tmp_path / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT), "REDIS_URL": own_redis.url},
            stdout=log,
            stderr=log,
        )
        try:
            told.wait(lambda: told.online)
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def app(own_redis: OwnRedis) -> Iterator[Celery]:
    """Sends to that worker."""
    sending = Celery("test", broker=own_redis.url, set_as_current=False)
    sending.conf.task_default_queue = "dispatch"
    yield sending
    sending.close()


@pytest.mark.usefixtures("worker")
def test_everything_is_told_once_and_together(app: Celery, told: Told, tmp_path: Path) -> None:
    sent = {app.send_task("touch", (str(tmp_path / "trace"),)).id for _ in range(COUNT)}
    told.wait(lambda: told.of("task-succeeded").total() >= COUNT)
    for kind in TASK_EVENTS:
        assert told.of(kind) == Counter(sent), kind
    # Each by itself they are some seventy.
    assert len(told.messages) <= COUNT / 2


@pytest.mark.usefixtures("worker")
def test_one_alone_is_told_soon(app: Celery, told: Told, tmp_path: Path) -> None:
    for _ in range(3):
        trace = tmp_path / "trace"
        before = told.of("task-succeeded").total()
        app.send_task("touch", (str(trace),))
        told.wait(trace.exists)
        began = time.monotonic()
        told.wait(lambda before=before: told.of("task-succeeded").total() > before)  # type: ignore[misc]
        assert time.monotonic() - began < FLUSH_AFTER_S + 1
        trace.unlink()


def test_a_worker_that_ends_tells_what_it_has_done(
    app: Celery, told: Told, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    app.send_task("touch", (str(trace),))
    told.wait(trace.exists)
    worker.terminate()
    told.wait(lambda: told.of("task-succeeded").total() == 1)


def test_after_redis_has_been_away_it_goes_on_telling(
    app: Celery, told: Told, own_redis: OwnRedis, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    app.send_task("touch", (str(tmp_path / "one"),))
    told.wait((tmp_path / "one").exists)
    own_redis.stop()
    own_redis.start()
    again = Told(own_redis.url)
    app.send_task("touch", (str(tmp_path / "two"),))
    again.wait(lambda: again.of("task-succeeded").total() >= 1)
    assert worker.poll() is None
