"""Is every request answered while the web is reloaded or restarted?"""

from __future__ import annotations

import hashlib
import http.client
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import redis

from devstack import PROJECT_ROOT
from tests.acceptance.session import wait_for
from tests.conftest import free_port, wait_until_answers
from tests.support.ownredis import OwnRedis
from tests.support.refusing import refusing

CALLERS = 6  # of each kind
# After each signal, so that whatever a stopping process does happens under load.
ANSWERS_MORE = 300


class Callers:
    """They ask one request after the other: half of them on one connection, half on a new one."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.answers: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._call, args=(keep,))
            for keep in (True, False)
            for _ in range(CALLERS)
        ]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        self.wait_for_more()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    @property
    def refused(self) -> dict[str, int]:
        """What was no 200, by what it was."""
        return {answer: count for answer, count in self.answers.items() if answer != "200"}

    def wait_for_more(self) -> None:
        """Return when so many more requests have been answered, whatever with."""
        wanted = self.answers.total() + ANSWERS_MORE
        wait_for("answers", lambda: self.answers.total() > wanted or None, within_s=30)

    def _call(self, keep: bool) -> None:
        connection = self._connection()
        while not self._end.is_set():
            try:
                connection.request("GET", "/healthz")
                response = connection.getresponse()
                response.read()
                answer = str(response.status)
            except (OSError, http.client.HTTPException) as error:
                answer = type(error).__name__
                connection.close()
            if not keep:
                connection.close()
            with self._lock:
                self.answers[answer] += 1
            self._end.wait(0.01)
        connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)


def environment(redis_url: str, port: int) -> dict[str, str]:
    """What the web wants to know."""
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "REDIS_URL": redis_url,
        "LIVEKIT_URL": "ws://127.0.0.1:1",
        "LIVEKIT_API_KEY": "key",
        "LIVEKIT_API_SECRET": secrets.token_hex(32),
        "USHER_API_KEY_SHA256": hashlib.sha256(b"key").hexdigest(),
        "USHER_WEB_HOST": "127.0.0.1",
        "USHER_WEB_PORT": str(port),
    }


@contextmanager
def web(redis_url: str, log: Path, command: list[str]) -> Iterator[tuple[psutil.Process, int]]:
    """The Procfile's web, or what runs it, answering; and its port."""
    port = free_port()
    with log.open("wb") as output:
        started = subprocess.Popen(
            command,
            cwd=PROJECT_ROOT,
            env=environment(redis_url, port),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            wait_until_answers(f"http://127.0.0.1:{port}/healthz")
            yield psutil.Process(started.pid), port
        finally:
            started.terminate()
            started.wait(timeout=30)


# As systemd starts it.
WEB = "exec deploy/run web"
ALONE = ["/bin/sh", "-c", WEB]
TWO_AT_ONE_SOCKET = [sys.executable, "-m", "tests.faults.held_socket", "2", WEB]


def renewed(parent: psutil.Process, old: set[int], count: int) -> Callable[[], bool | None]:
    """True when the parent has so many children, none of them an old one."""

    def look() -> bool | None:
        children = {child.pid for child in parent.children()}
        return True if len(children) == count and not children & old else None

    return look


def test_a_reload_refuses_nobody(redis_url: str, tmp_path: Path) -> None:
    with web(redis_url, tmp_path / "web.log", ALONE) as (master, port), Callers(port) as callers:
        for _ in range(2):
            workers = {child.pid for child in master.children()}

            master.send_signal(signal.SIGHUP)

            wait_for("other workers", renewed(master, workers, len(workers)), within_s=30)
            callers.wait_for_more()

    assert callers.refused == {}


def test_restarting_two_at_one_socket_in_turn_refuses_nobody(
    redis_url: str, tmp_path: Path
) -> None:
    with (
        web(redis_url, tmp_path / "web.log", TWO_AT_ONE_SOCKET) as (holder, port),
        Callers(port) as callers,
    ):
        for master in holder.children():
            master.terminate()
            wait_for("the next one", lambda old=master: not old.is_running() or None, within_s=30)
            wait_for("two", renewed(holder, {master.pid}, 2), within_s=30)
            callers.wait_for_more()

    assert callers.refused == {}


def test_killing_them_instead_is_noticed(redis_url: str, tmp_path: Path) -> None:
    """So the tests above could fail."""
    with (
        web(redis_url, tmp_path / "web.log", TWO_AT_ONE_SOCKET) as (holder, port),
        Callers(port) as callers,
    ):
        for process in holder.children(recursive=True):
            process.kill()
        wait_for("refusals", lambda: callers.refused or None, within_s=30)


def test_a_busy_address_is_told_in_one_line(redis_url: str, tmp_path: Path) -> None:
    with web(redis_url, tmp_path / "web.log", TWO_AT_ONE_SOCKET) as (_, port):
        second = subprocess.run(
            ALONE,
            cwd=PROJECT_ROOT,
            env=environment(redis_url, port),
            capture_output=True,
            text=True,
            timeout=30,
        )

    assert second.returncode == 1
    assert f"cannot listen at 127.0.0.1:{port}: Address already in use" in second.stderr
    assert "Traceback" not in second.stderr


def test_a_worker_whose_master_was_killed_still_writes_what_it_promised_without_redis(
    own_redis: OwnRedis, tmp_path: Path
) -> None:
    with web(own_redis.url, tmp_path / "web.log", ALONE) as (master, port):
        workers = master.children()
        with refusing(own_redis.url, "OOM", tmp_path):
            answer = httpx.post(
                f"http://127.0.0.1:{port}/api/v1/dispatches",
                headers={"Authorization": "Bearer key"},
                timeout=5,
            ).json()
            master.kill()
            wait_for("the door closed", lambda: not answers(port) or None, within_s=30)
            time.sleep(3)  # in which one that does not wait would have ended
        with redis.Redis.from_url(own_redis.url) as raw:
            record = f"usher:dispatch:{answer['dispatch_id']}"
            wait_for("the record", lambda: raw.exists(record) or None, within_s=10)
        _, alive = psutil.wait_procs(workers, timeout=10)

    assert answer["status"] == "delegated"
    assert alive == []


def answers(port: int) -> bool:
    """Whether a process listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
