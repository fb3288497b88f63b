"""Would the image contain all that its processes need, and do their probes tell?

What this does not show: the base image, its user, and the read-only root. In `make test` the
packages are those of the test's own Python; `make faults` installs them by their hashes as the
image does.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest
import redis

from devstack import PROJECT_ROOT
from devstack.supervision import read_procfile
from dispatcher.observability.liveness import QUIET_S
from tests.acceptance.session import wait_for
from tests.conftest import LiveKitServer

from .containers import Containers
from .image import Stage, built, ignored

STARTS_WITHIN_S = 90


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with built(tmp_path_factory.mktemp("build"), install=False) as stage:
        yield stage


@pytest.fixture
def empty_redis(redis_url: str) -> str:
    """The session's Redis, emptied."""
    with redis.Redis.from_url(redis_url) as client:
        client.flushall()
    return redis_url


KINDS = ("startupProbe", "readinessProbe", "livenessProbe")
PROCESSES = tuple(read_procfile(PROJECT_ROOT / "Procfile"))


def start_probe_and_stop(containers: Containers, *, works_for_s: float = 0) -> None:
    """Every process, the probes of its manifest while it works, and while it stands still."""
    with ExitStack() as stack:
        running = {name: stack.enter_context(containers.running(name)) for name in PROCESSES}

        for name in PROCESSES:
            for kind in KINDS:
                wait_for(
                    f"{kind} of {name}; its log: {containers.log(name)[-2000:]}",
                    lambda name=name, kind=kind: containers.probe(name, kind) or None,
                    within_s=STARTS_WITHIN_S,
                )
        wait_for("nothing missing", lambda: nothing_missing(containers) or None, within_s=30)

        until = time.monotonic() + works_for_s
        while time.monotonic() < until:
            assert [name for name in PROCESSES if not containers.probe(name, KINDS[-1])] == []
            time.sleep(1)

        # Both ways: one that stands still is found.
        for process in running.values():
            for each in [process.pid, *(p.pid for p in psutil.Process(process.pid).children())]:
                os.kill(each, signal.SIGSTOP)
        for name in ("dispatch", "verify", "beat", "agent"):
            wait_for(
                f"{name} found out",
                lambda name=name: not containers.alive(name, "5") or None,
                within_s=20,
            )
        for name in ("web", "agent", "flower"):
            assert not containers.probe(name, "livenessProbe")
        for process in running.values():
            for each in psutil.Process(process.pid).children():
                each.resume()
            psutil.Process(process.pid).resume()


def nothing_missing(containers: Containers) -> bool:
    url = f"http://127.0.0.1:{containers.ports['web']}/readyz"
    answer: dict[str, object] = httpx.get(url, timeout=5, trust_env=False).json()
    return answer["not_ready"] == []


@pytest.mark.deployment
@pytest.mark.timeout(200)
def test_every_process_runs_from_what_the_image_has_and_its_probes_tell(
    image: Stage, tmp_path: Path, empty_redis: str, livekit_server: LiveKitServer
) -> None:
    start_probe_and_stop(Containers(image, tmp_path, empty_redis, livekit_server))


@pytest.mark.long
@pytest.mark.timeout(400)
def test_and_so_it_does_with_nothing_but_the_packages_of_requirements_txt(
    tmp_path: Path, empty_redis: str, livekit_server: LiveKitServer
) -> None:
    with built(tmp_path, install=True) as image:
        containers = Containers(image, tmp_path, empty_redis, livekit_server)
        start_probe_and_stop(containers, works_for_s=QUIET_S + 10)


@pytest.mark.deployment
def test_flower_does_not_start_without_a_password_in_the_image_either(
    image: Stage, tmp_path: Path, redis_url: str, livekit_server: LiveKitServer
) -> None:
    containers = Containers(image, tmp_path, redis_url, livekit_server)
    del containers.environ["FLOWER_BASIC_AUTH"]
    flower = containers.popen("flower")
    try:
        assert flower.wait(timeout=60) != 0
    finally:
        flower.kill()
        flower.wait()
    assert "Flower does not start without a password" in containers.log("flower")


@pytest.mark.parametrize(
    "name",
    [
        "tests/conftest.py",
        ".git/config",
        "deploy/container/usher.env",
        "bench/agent.py",
        "deploy/README.md",
        "web/__pycache__/app.pyc",
        ".venv/bin/python",
    ],
)
def test_what_is_no_part_of_the_image_stays_out_of_the_build(name: str) -> None:
    lines = (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
    assert ignored([line for line in lines if line and not line.startswith("#")], name)
