"""Another tenant that asks for far more than its share: `python -m tests.faults.neighbour KIND`.

A process of its own, so that what it costs is not the tests'. Its key comes from NEIGHBOUR_KEY.
KIND is `flood` (sessions with an agent that no server runs are asked for, and cancelled when it
has many), `redispatch` (one session is cancelled and sent again) or `oversize` (a body with 95,000
wrong attributes). It writes every answer into a journal, ends after `--times` or with SIGTERM, and
cancels what it has left.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Generator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from tests.faults.campaign.journal import Journal

ENDPOINT: Final = "/api/v1/dispatches"
ANSWERED: Final = "neighbour_answered"
KEY: Final = "NEIGHBOUR_KEY"
NOBODYS_AGENT: Final = "an-agent-that-no-server-runs"
_CONNECTIONS: Final = 6
_ANSWERS_WITHIN_S: Final = 10.0
# 880 kB: less than a body may have, and 95,000 mistakes.
_WRONG_ATTRIBUTES: Final = 95_000


class Excess(StrEnum):
    """What it does too much of."""

    FLOOD = "flood"
    REDISPATCH = "redispatch"
    OVERSIZE = "oversize"


def command(
    excess: Excess,
    url: str,
    *,
    journal: Path,
    times: int = 0,
    per_s: float = 0.0,
    holds: int = 10,
    pause_s: float = 0.0,
) -> list[str]:
    """What starts it: so many turns (0: for ever), so many a second (0: one after the other).

    A flood `holds` so many sessions on each of its connections, and cancels all of them at its end,
    after a pause.
    """
    own = ["--journal", str(journal), "--times", str(times), "--per-s", str(per_s)]
    own += ["--holds", str(holds), "--pause-s", str(pause_s)]
    return [sys.executable, "-m", "tests.faults.neighbour", excess, url, *own]


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int  # 0: none
    body: dict[str, Any]


class _Connection:
    """One connection to the door, opened again where it was lost."""

    def __init__(self, url: str, excess: Excess, journal: Journal) -> None:
        address = urlsplit(url)
        assert address.hostname
        self._http = http.client.HTTPConnection(
            address.hostname, address.port, timeout=_ANSWERS_WITHIN_S
        )
        self._headers = {
            "Authorization": f"Bearer {os.environ[KEY]}",
            "Content-Type": "application/json",
        }
        self._excess = excess
        self._journal = journal

    def ask(self, method: str, path: str, body: bytes | None = None) -> _Answer:
        """One request; its answer is written down."""
        began = time.perf_counter()
        answer = _Answer(status=0, body={})
        try:
            self._http.request(method, path, body, self._headers)
            response = self._http.getresponse()
            text = response.read()
            answer = _Answer(status=response.status, body=json.loads(text) if text else {})
        except (OSError, http.client.HTTPException, ValueError):
            self._http.close()
        self._journal.write(
            ANSWERED,
            excess=self._excess,
            method=method,
            status=answer.status,
            took_s=round(time.perf_counter() - began, 4),
            dispatch_id=answer.body.get("dispatch_id", ""),
        )
        return answer

    def create(self, agent_name: str = "") -> str:
        """A session in a room of its own; its id, or nothing where it was refused."""
        agents = [{"agent_name": agent_name}] if agent_name else []
        body = json.dumps({"room_config": {"agents": agents}} if agents else {}).encode()
        answer = self.ask("POST", ENDPOINT, body)
        return str(answer.body.get("dispatch_id", "")) if answer.status == 200 else ""

    def cancel(self, dispatch_id: str) -> None:
        self.ask("DELETE", f"{ENDPOINT}/{dispatch_id}")


def _flood(connection: _Connection, options: argparse.Namespace) -> Generator[None]:
    held: deque[str] = deque()
    try:
        while True:
            if dispatch_id := connection.create(NOBODYS_AGENT):
                held.append(dispatch_id)
            if len(held) > options.holds:
                connection.cancel(held.popleft())
            yield
    finally:
        time.sleep(options.pause_s)
        for dispatch_id in held:
            connection.cancel(dispatch_id)


def _redispatch(connection: _Connection, _: argparse.Namespace) -> Generator[None]:
    dispatch_id = ""
    try:
        while True:
            if dispatch_id:
                connection.cancel(dispatch_id)
                connection.ask("POST", f"{ENDPOINT}/{dispatch_id}/redispatch")
            else:
                dispatch_id = connection.create()
            yield
    finally:
        if dispatch_id:
            connection.cancel(dispatch_id)


def _oversize(connection: _Connection, _: argparse.Namespace) -> Generator[None]:
    attributes = {f"{number:x}": 0 for number in range(_WRONG_ATTRIBUTES)}
    body = json.dumps({"participant_attributes": attributes}, separators=(",", ":")).encode()
    while True:
        connection.ask("POST", ENDPOINT, body)
        yield


_TURNS: Final = {
    Excess.FLOOD: _flood,
    Excess.REDISPATCH: _redispatch,
    Excess.OVERSIZE: _oversize,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("excess", type=Excess, choices=list(Excess))
    parser.add_argument("url")
    parser.add_argument("--journal", type=Path, required=True)
    parser.add_argument("--times", type=int, default=0)
    parser.add_argument("--per-s", type=float, default=0.0)
    parser.add_argument("--holds", type=int, default=10)
    parser.add_argument("--pause-s", type=float, default=0.0)
    options = parser.parse_args()
    journal = Journal(options.journal)
    began, turns, over = time.monotonic(), itertools.count(), threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())

    def run() -> None:
        connection = _Connection(options.url, options.excess, journal)
        doing = _TURNS[options.excess](connection, options)
        while not over.is_set() and (number := next(turns)) < (options.times or sys.maxsize):
            if options.per_s:
                over.wait(max(0.0, began + number / options.per_s - time.monotonic()))
            next(doing)
        doing.close()

    threads = [threading.Thread(target=run, daemon=True) for _ in range(_CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main()
