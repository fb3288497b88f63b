"""What does an agent server log while it cannot connect? Real processes, and the true servers."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from livekit import api as livekit_api

from devstack import PROJECT_ROOT
from tests.conftest import free_port
from tests.support.ownredis import OwnRedis
from tests.support.values import WAIT_S

if TYPE_CHECKING:
    from tests.conftest import LiveKitServer

OURS = ("-m", "worker_agent")
WRONG_SECRET = "c4nary-of-a-secret-that-is-livekits-no-longer"
JSON_WEB_TOKEN = re.compile(r"eyJ[\w-]+\.eyJ")


@contextmanager
def agent_server(
    log: Path, *program: str, redis_url: str, livekit: LiveKitServer, **environ: str
) -> Iterator[None]:
    """The agent server of that program for as long as the block lasts; both outputs go to `log`."""
    port = str(free_port())
    settings = {
        "REDIS_URL": redis_url,
        "LIVEKIT_URL": livekit.url,
        "LIVEKIT_API_KEY": livekit.api_key,
        "LIVEKIT_API_SECRET": livekit.api_secret,
        "USHER_AGENT_EXECUTOR": "thread",
        "USHER_AGENT_PORT": port,
        "PORT": port,
        "PYTHONPATH": str(PROJECT_ROOT),
        "USHER_AGENT_DRAIN_S": "0",
    }
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *program],
            cwd=PROJECT_ROOT,
            env={**os.environ, **settings, **environ},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            yield
        finally:
            os.killpg(process.pid, signal.SIGKILL)  # and livekit-agents' fork server
            process.wait()


def said(log: Path, words: str, *, times: int = 1, within_s: float = WAIT_S) -> str:
    """The log, as soon as it has these words so often."""
    until = time.monotonic() + within_s
    while (text := log.read_text(errors="replace")).count(words) < times:
        assert time.monotonic() < until, f"not {times} x {words!r} within {within_s} s: {text}"
        time.sleep(0.02)
    return text


@pytest.mark.parametrize("log_format", ["json", "text"])
def test_an_agent_server_with_a_wrong_secret_logs_no_token(
    log_format: str, livekit_server: LiveKitServer, redis_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "agent.log"
    environ = {"USHER_LOG_FORMAT": log_format, "LIVEKIT_API_SECRET": WRONG_SECRET}
    with agent_server(log, *OURS, redis_url=redis_url, livekit=livekit_server, **environ):
        text = said(log, "failed to connect to livekit", times=2)

    assert not JSON_WEB_TOKEN.search(text), text
    assert WRONG_SECRET not in text
    assert "401" in text  # what has happened is still there


CARELESS = """
import logging, os

@server.on("worker_started")
def careless():
    error = RuntimeError("refused: Bearer " + os.environ["A_BEARER"])
    logging.getLogger("mine").error("a careless line", extra={"error": error}, exc_info=error)

"""


@pytest.mark.parametrize("mode", [("start",), ("dev", "--no-reload")], ids=["start", "dev"])
def test_a_program_with_handlers_of_its_own_logs_no_token_either(
    mode: tuple[str, ...], livekit_server: LiveKitServer, redis_url: str, tmp_path: Path
) -> None:
    log, program = tmp_path / "agent.log", tmp_path / "careless.py"
    text = (PROJECT_ROOT / "examples" / "agent.py").read_text()
    program.write_text(text.replace("if __name__", CARELESS + "if __name__"))
    token = livekit_api.AccessToken(livekit_server.api_key, livekit_server.api_secret).to_jwt()
    careless = {"A_BEARER": token}
    with agent_server(
        log, str(program), *mode, redis_url=redis_url, livekit=livekit_server, **careless
    ):
        text = said(log, "RuntimeError: refused")

    assert not JSON_WEB_TOKEN.search(text), text
    assert "Bearer [hidden]" in text


REFUSED = """
import asyncio, logging, os
from livekit import rtc
from dispatcher.observability.logs import configure
from worker_agent.prewarm import prepare

async def main():
    prepare()
    try:
        await rtc.Room().connect(os.environ["URL"], os.environ["TOKEN"])
    except rtc.ConnectError:
        logging.getLogger("job").exception("cannot connect")
    os._exit(0)

configure(log_format="json", level="INFO")
asyncio.run(main())
"""


@pytest.mark.parametrize("rust_log", [None, "debug"])
def test_a_job_whose_token_livekit_refuses_logs_it_nowhere(
    rust_log: str | None, livekit_server: LiveKitServer
) -> None:
    """LiveKit repeats the token in its answer, and the native library writes it to the log."""
    grants = livekit_api.VideoGrants(room_join=True, room="room-1")
    token = livekit_api.AccessToken(livekit_server.api_key, WRONG_SECRET).with_grants(grants)
    environ = {"URL": livekit_server.url, "TOKEN": token.with_identity("ann").to_jwt()}
    own = {name: value for name, value in os.environ.items() if name != "RUST_LOG"}
    ran = subprocess.run(
        [sys.executable, "-c", REFUSED],
        env={**own, **environ, **({"RUST_LOG": rust_log} if rust_log else {})},
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert not JSON_WEB_TOKEN.search(ran.stderr), ran.stderr
    assert "invalid token: [hidden]" in ran.stderr  # as Python tells it
    assert " WARN  livekit" in ran.stderr  # the native library still says what it may


def test_an_agent_server_says_at_once_and_once_that_it_cannot_reach_redis(
    livekit_server: LiveKitServer, own_redis: OwnRedis, tmp_path: Path
) -> None:
    log = tmp_path / "agent.log"
    own_redis.stop()
    often = {"USHER_AGENT_REPORT_S": "0.3"}
    with agent_server(log, *OURS, redis_url=own_redis.url, livekit=livekit_server, **often):
        said(log, "registered worker")
        text = said(log, "cannot report to Redis", within_s=2)
        assert "check REDIS_URL" in text
        own_redis.start()
        said(log, "Redis answers again")
        own_redis.stop()
        said(log, "cannot report to Redis", times=2, within_s=5)
        time.sleep(1)  # three reports more: it is not said again
        assert log.read_text().count("cannot report to Redis") == 2
