"""Do workers hear again after Redis's machine has vanished without a word (row 9, half-open TCP)?

A connection on which one only waits (BRPOP, a subscription) never learns that its other end is
gone, unless somebody probes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

from devstack import PROJECT_ROOT
from dispatcher.ledger import dispatches
from dispatcher.ledger.client import Ledger
from dispatcher.settings import CommonSettings
from tests.support.values import new_dispatch

from .far_redis import FarRedis

if TYPE_CHECKING:
    from tests.conftest import LiveKitServer

pytestmark = [pytest.mark.timeout(180), pytest.mark.long]

CLIENT_ID = "acme"
# A session has 20 s: the workers must be back well before.
BACK_WITHIN_S = 12.0


@pytest.fixture
def far_redis(tmp_path: Path) -> Iterator[FarRedis]:
    try:
        server = FarRedis(tmp_path)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network namespaces here: they need root on Linux, and `ip` ({error})")
    yield server
    server.close()


@contextlib.contextmanager
def worker(queues: str, environ: dict[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A Celery worker as the Procfile has it."""
    arguments = ["-A", "dispatcher", "worker", "--queues", queues, "--pool", "threads"]
    arguments += ["--concurrency", "4", "--hostname", f"{queues}@test"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "celery", *arguments, "--without-mingle", "--without-gossip"],
            cwd=PROJECT_ROOT,
            env={**os.environ, **environ},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture
def environ(far_redis: FarRedis, livekit_server: LiveKitServer) -> dict[str, str]:
    return {
        "REDIS_URL": far_redis.url,
        "LIVEKIT_URL": livekit_server.url,
        "LIVEKIT_API_KEY": livekit_server.api_key,
        "LIVEKIT_API_SECRET": livekit_server.api_secret,
        "USHER_CLIENT_ID": CLIENT_ID,
        "USHER_API_KEY_SHA256": hashlib.sha256(b"key").hexdigest(),
        "USHER_LOG_FORMAT": "text",
        "PYTHONPATH": str(PROJECT_ROOT),
    }


def seconds_until(what: str, look: Callable[[], object], *, within_s: float) -> float:
    """How long it takes until `look`, which may fail on Redis, gives something true."""
    started = time.monotonic()
    while (passed_s := time.monotonic() - started) < within_s:
        with contextlib.suppress(redis.RedisError):
            if look():
                return passed_s
        time.sleep(0.05)
    raise AssertionError(f"not within {within_s} s: {what}")


def test_workers_hear_again_soon_after_redis_has_vanished_without_a_word(
    far_redis: FarRedis, environ: dict[str, str], tmp_path: Path
) -> None:
    common = CommonSettings(REDIS_URL=far_redis.url, USHER_REDIS_TIMEOUT_S=2)
    client = redis.Redis.from_url(far_redis.url, socket_timeout=2, decode_responses=True)
    store = Ledger(common)

    def consumed() -> bool:
        """A message in each worker's queue is taken."""
        return client.llen("dispatch") == client.llen("verify") == 0

    def listened() -> bool:
        """The subscription to the agent servers' news is there."""
        return client.pubsub_numpat() > 0

    def dispatched() -> bool:
        """A record goes from the sweeper to a dispatch worker and on."""
        record = store.run(dispatches.read(dispatch_id))
        return record is not None and record.state in ("waiting", "failed")

    with (
        worker("dispatch,sweep", environ, tmp_path / "dispatch.log") as first,
        worker("verify", environ, tmp_path / "verify.log") as second,
    ):
        seconds_until("both workers", lambda: listened() and _blocked(client) == 2, within_s=30)
        time.sleep(1)  # they are waiting for messages by now, all their connections idle
        far_redis.vanish()
        time.sleep(1)  # whatever is on its way is lost
        far_redis.appear()
        back = time.monotonic()
        dispatch_id = f"dsp_{uuid.uuid4().hex}"
        new = new_dispatch(dispatch_id, client_id=CLIENT_ID)
        seconds_until(
            "a record",
            lambda: store.run(dispatches.create(new, due_in_s=0, detail={})) is not None,
            within_s=5,
        )
        took = {
            "subscribed": seconds_until("the subscription", listened, within_s=90),
            "took messages": seconds_until(
                "both workers' BRPOP", lambda: _blocked(client) == 2, within_s=90
            ),
        }
        seconds_until("the record's way", dispatched, within_s=30)
        took_s = time.monotonic() - back
        assert first.poll() is None
        assert second.poll() is None
        assert consumed()
    client.close()
    store._redis.close()
    print(f"back after {took_s:.1f} s: {took}")
    assert took_s < BACK_WITHIN_S, took


def _blocked(client: redis.Redis) -> int:
    """How many connections wait in BRPOP."""
    return int(client.info("clients")["blocked_clients"])
