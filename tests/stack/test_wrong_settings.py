"""Every process of the Procfile ends in one line on a setting that is missing or wrong."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
import redis
from celery import Celery
from pydantic_settings import BaseSettings

from devstack import PROJECT_ROOT
from devstack.supervision import read_procfile
from dispatcher import flower_options, settings
from tests.acceptance.session import wait_for
from tests.conftest import free_port, wait_until_answers
from tests.stack.wrong_settings import (
    ANY_TEXT,
    CLASSES,
    MARK,
    RIGHT,
    WRONG,
    Row,
    fields_of,
    modules_with_settings,
    rows,
)
from tests.support.clientsfile import a_client, a_key
from tests.support.values import eventually
from web import settings as web_settings
from worker_agent import settings as agent_settings

COMMANDS = read_procfile(PROJECT_ROOT / "Procfile")
MODULES = (settings, web_settings, agent_settings, flower_options)
ENDS_WITHIN_S = 5.0
AT_ONCE = 2  # starts; each is a second of one core
WORKER = """
import sys
from dispatcher.celery import app
worker = app.Worker(pool="threads", concurrency=2, queues=["dispatch", "sweep"])
worker.start()
sys.exit(worker.exitcode)
"""

pytestmark = pytest.mark.apart


def environment(redis_url: str, changes: Mapping[str, str | None]) -> dict[str, str]:
    """An environment with which every process starts, but for the changes."""
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    base = {**kept, **RIGHT, "PATH": path, "REDIS_URL": redis_url, "PYTHONPATH": str(PROJECT_ROOT)}
    ports = ("USHER_WEB_PORT", "USHER_AGENT_PORT", "USHER_FLOWER_PORT")
    merged = {**base, **{name: str(free_port()) for name in ports}, **changes}
    return {name: value for name, value in merged.items() if value is not None}


def ended(process: str, environ: Mapping[str, str], cwd: Path) -> tuple[int, str, float]:
    """The exit code of a process that ends by itself, all that it has printed, and how long."""
    began = time.monotonic()
    with subprocess.Popen(
        ["/bin/sh", "-c", COMMANDS[process]],
        cwd=cwd,
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as started:
        try:
            printed, _ = started.communicate(timeout=4 * ends_within_s())
        except subprocess.TimeoutExpired:
            os.killpg(started.pid, signal.SIGKILL)
            return 0, started.communicate()[0], time.monotonic() - began
    return started.returncode, printed, time.monotonic() - began


def ends_within_s() -> float:
    """How long it may take: more where others want the processors, too."""
    return ENDS_WITHIN_S * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))


def wrong_about(row: Row, redis_url: str, cwd: Path) -> str:
    """What is not as it should be when the row's process is started; "" if nothing."""
    environ = environment(redis_url, row.changes)
    code, printed, took_s = ended(row.process, environ, cwd)
    lines = printed.splitlines()
    faults = [
        f"exit code {code}" if code == 0 else "",
        f"{len(lines)} lines" if len(lines) != 1 else "",
        *(f"{part} is not said" for part in row.says if part not in printed),
        f"after {took_s:.1f} s" if took_s > ends_within_s() else "",
        "repeats the value" if MARK in printed and "nonexistent" not in printed else "",
    ]
    told = ", ".join(filter(None, faults))
    return f"{row.process} {row}: {told}\n{printed}" if told else ""


@pytest.fixture
def queues(redis_url: str) -> Iterator[redis.Redis]:
    """A message in every queue, of Celery's own making."""
    with (
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
        Celery(broker=redis_url, set_as_current=False) as sender,
    ):
        client.flushall()
        for queue in ("dispatch", "verify", "sweep", "webhooks"):
            sender.send_task("dispatcher.tasks.dispatch_agent", ("dsp_1", "room"), queue=queue)
        yield client


def everything(client: redis.Redis) -> dict[str, list[str]]:
    """Every list, which is what a queue is."""
    return {key: client.lrange(key, 0, -1) for key in sorted(client.scan_iter(_type="list"))}


@pytest.mark.parametrize("process", COMMANDS)
def test_a_wrong_setting_ends_it_in_one_line_before_it_takes_a_message(
    process: str, redis_url: str, queues: redis.Redis, tmp_path: Path
) -> None:
    before = everything(queues)
    assert set(before) == {"dispatch", "sweep", "verify", "webhooks"}

    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = list(pool.map(lambda row: wrong_about(row, redis_url, tmp_path), rows(process)))

    assert "\n".join(filter(None, found)) == ""
    assert everything(queues) == before


def test_every_setting_has_a_row_and_every_process_its_settings() -> None:
    assert set(CLASSES) == set(COMMANDS)
    everywhere = {
        each
        for module in MODULES
        for each in vars(module).values()
        if isinstance(each, type) and issubclass(each, BaseSettings)
    }
    names = {str(field.alias) for each in everywhere for field in each.model_fields.values()}
    assert names - set(WRONG) == ANY_TEXT
    assert names - {name for process in CLASSES for name in fields_of(process)} == set()
    # Those of a settings class that no test knows would be in none of these.
    files = {str(Path(str(module.__file__)).relative_to(PROJECT_ROOT)) for module in MODULES}
    assert modules_with_settings() == files


@contextmanager
def started(
    process: str, environ: Mapping[str, str], cwd: Path, log: Path
) -> Iterator[psutil.Process]:
    """A process of the Procfile that runs; killed at the end, with all that it has started."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            ["/bin/sh", "-c", COMMANDS[process]],
            cwd=cwd,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ) as running,
    ):
        try:
            yield psutil.Process(running.pid)
        finally:
            os.killpg(running.pid, signal.SIGKILL)


async def test_with_right_settings_it_takes_them_wherever_it_is_started(
    redis_url: str, queues: redis.Redis, tmp_path: Path
) -> None:
    """In a folder whose own `celeryconfig.py` names another broker; so the tests could fail."""
    (tmp_path / "celeryconfig.py").write_text("broker_url = 'redis://127.0.0.1:2/0'\n")
    environ = environment(redis_url, {})

    with started("dispatch", environ, tmp_path, tmp_path / "dispatch.log"):
        await eventually(lambda: not queues.exists("dispatch", "sweep"))

    assert queues.llen("verify") == 1


def test_a_worker_that_cannot_get_ready_stops_instead_of_taking_messages(
    redis_url: str, queues: redis.Redis, tmp_path: Path
) -> None:
    """One that no command of Celery's has started, so that its settings have not been checked."""
    before = everything(queues)
    environ = environment(redis_url, {"USHER_CLIENTS_FILE": "/nonexistent/clients.toml"})

    stopped = subprocess.run(
        [sys.executable, "-c", WORKER],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=30,
    )

    assert stopped.returncode == 1
    assert "the worker cannot work, and stops" in stopped.stderr
    assert "USHER_CLIENTS_FILE" in stopped.stderr
    assert {key: everything(queues)[key] for key in before} == before


def test_flower_is_not_open_because_of_the_folder_it_is_started_in(
    redis_url: str, tmp_path: Path
) -> None:
    (tmp_path / "flowerconfig.py").write_text("address = '127.0.0.2'\n")
    says = ("FLOWER_BASIC_AUTH",)
    row = Row(process="flower", changes={"FLOWER_BASIC_AUTH": None}, says=says)
    assert wrong_about(row, redis_url, tmp_path) == ""

    environ = environment(redis_url, {})
    url = f"http://127.0.0.1:{environ['USHER_FLOWER_PORT']}"
    with started("flower", environ, tmp_path, tmp_path / "flower.log"):
        wait_until_answers(f"{url}/healthcheck")
        assert httpx.get(f"{url}/tasks", trust_env=False).status_code == 401


@pytest.mark.parametrize("process", ["agent", "flower"])
def test_an_address_in_use_is_told_in_one_line(
    process: str, redis_url: str, tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        variable = f"USHER_{process.upper()}_PORT"
        port = str(busy.getsockname()[1])
        says = (f"cannot listen at 127.0.0.1:{port}", "Address already in use", "_PORT")
        row = Row(process=process, changes={variable: port}, says=says)

        assert wrong_about(row, redis_url, tmp_path) == ""


def test_a_second_web_at_the_same_address_ends_and_the_first_goes_on(
    redis_url: str, tmp_path: Path
) -> None:
    environ = environment(redis_url, {})
    url = f"http://127.0.0.1:{environ['USHER_WEB_PORT']}/healthz"
    with started("web", environ, tmp_path, tmp_path / "web.log"):
        wait_until_answers(url)
        code, printed, _ = ended("web", environ, tmp_path)
        answers = {httpx.get(url, trust_env=False).status_code for _ in range(20)}

    assert code == 1
    assert "Traceback" not in printed
    last = printed.splitlines()[-1]
    assert "Address already in use" in last
    assert "USHER_WEB_PORT" in last
    assert answers == {200}


def test_a_web_worker_that_dies_while_the_file_of_clients_is_wrong_is_replaced(
    redis_url: str, tmp_path: Path
) -> None:
    clients = tmp_path / "clients.toml"
    clients.write_text(a_client("acme", a_key("acme", "acme-secret"), secret="env:A_SECRET"))
    changes = {"USHER_CLIENTS_FILE": str(clients), "A_SECRET": "s" * 32, "USHER_WEB_WORKERS": "1"}
    environ = environment(redis_url, changes)
    url = f"http://127.0.0.1:{environ['USHER_WEB_PORT']}"

    def listed() -> int | None:
        with contextlib.suppress(httpx.TransportError):
            headers = {"Authorization": "Bearer acme-secret"}
            path = f"{url}/api/v1/dispatches"
            return httpx.get(path, headers=headers, trust_env=False, timeout=5).status_code
        return None

    with started("web", environ, tmp_path, tmp_path / "web.log") as master:
        wait_until_answers(f"{url}/healthz")
        assert listed() == 200
        clients.write_text("not = [toml")
        [worker] = master.children()
        worker.kill()
        worker.wait()

        assert wait_for("an answer", listed, within_s=20) == 200
        assert master.is_running()
        assert worker not in master.children()
