"""How does a test follow a dispatch by server-sent events, as a page with `fetch` does?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx


@dataclass(frozen=True, kw_only=True)
class Sent:
    """One event; a comment has no name and no data."""

    event: str
    id: int
    data: dict[str, Any]


def parse(lines: Iterator[str]) -> Iterator[Sent]:
    """The events of a stream, comments included, as they come."""
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            yield Sent(event="", id=0, data={})
        elif line:
            name, _, value = line.partition(": ")
            fields[name] = value
        elif "data" in fields:
            yield Sent(event=fields["event"], id=int(fields["id"]), data=json.loads(fields["data"]))
            fields = {}
        else:
            fields = {}


@contextmanager
def follow(
    events_url: str, credential: str, *, last_event_id: int | None = None
) -> Iterator[Iterator[Sent]]:
    """The events of one dispatch for as long as the block lasts."""
    headers = {"Authorization": f"Bearer {credential}"}
    if last_event_id is not None:
        headers["Last-Event-ID"] = str(last_event_id)
    with (
        httpx.Client(trust_env=False, timeout=30) as http,
        http.stream("GET", events_url, headers=headers) as response,
    ):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        yield parse(response.iter_lines())
