"""How does a test get a dashboard with any sessions that it likes?

A web process of its own, as gunicorn runs it, on a Redis of its own that can be stopped; two
clients, no LiveKit and no workers.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import redis
from playwright.async_api import Page, expect

from devstack import PROJECT_ROOT
from dispatcher.ledger import reports
from tests.conftest import free_port, wait_until_answers
from tests.support.clientsfile import ENVIRON, a_client
from tests.support.ledgers import Told, fill, run_steps
from tests.support.ownredis import OwnRedis

USER, PASSWORD = "operator", "a-password-of-some-length"
CLIENTS = ("acme", "globex")
_STARTS_WITHIN_S = 60  # a busy machine imports for long
_STOPS_WITHIN_S = 15


@dataclass(frozen=True, kw_only=True)
class Dashboard:
    """Where it is, and what it shows."""

    url: str
    server: OwnRedis
    raw: redis.Redis

    def fill(self, sessions: Iterable[Told]) -> None:
        fill(self.raw, sessions)

    def all_parts_report(self) -> None:
        """As if workers, sweeper and LiveKit servers were there, for ten minutes."""
        at_work = [
            reports.worker_part(name) for name in ("dispatch", "verify", "sweep", "webhooks")
        ]
        at_work += [reports.SWEEPER, *(reports.livekit_part(client) for client in CLIENTS)]
        run_steps(self.raw, (reports.report_alive(name, ttl_s=600) for name in at_work))


@contextlib.contextmanager
def open_dashboard(directory: Path, **settings: str) -> Iterator[Dashboard]:
    """The web process with its Redis; keyword arguments are environment variables."""
    server = OwnRedis(directory)
    server.start()
    clients = directory / "clients.toml"
    clients.write_text("".join(a_client(name, agents='["session-agent-rag"]') for name in CLIENTS))
    port = free_port()
    environ = {
        **ENVIRON,
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(PROJECT_ROOT),
        "REDIS_URL": server.url,
        "USHER_CLIENTS_FILE": str(clients),
        "USHER_OPERATOR_AUTH": f"{USER}:{PASSWORD}",
        "USHER_WEB_PORT": str(port),
        "USHER_LOG_FORMAT": "text",
        **settings,
    }
    command = [sys.executable, "-m", "gunicorn", "--config", "python:web.gunicorn_conf"]
    log = (directory / "web.log").open("wb")
    web = subprocess.Popen(
        [*command, "web:create_app()"], env=environ, stdout=log, stderr=subprocess.STDOUT
    )
    try:
        wait_until_answers(f"http://127.0.0.1:{port}/healthz", within_s=_STARTS_WITHIN_S)
        with redis.Redis.from_url(server.url, decode_responses=True) as raw:
            yield Dashboard(url=f"http://127.0.0.1:{port}", server=server, raw=raw)
    finally:
        web.terminate()
        web.wait(_STOPS_WITHIN_S)
        log.close()
        server.stop()


async def signed_in(page: Page, user: str = USER, password: str = PASSWORD) -> None:
    """Fill in the form; return when the page behind it shows something."""
    await page.get_by_label("User").fill(user)
    await page.get_by_label("Password").fill(password)
    await page.keyboard.press("Enter")
    await expect(page.locator("#main")).to_have_attribute("aria-busy", "false", timeout=10_000)
