"""Outbox of the events for clients' own servers.

`advance.lua` and `restore.lua` write them, in the same step as the change that they announce, for
the clients that want any. The steps here deliver them, delay them or give them up.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from dispatcher.ledger import keys
from dispatcher.ledger.parsing import of_any_release, pairs
from dispatcher.ledger.step import Step, ms

DEAD_MAX: Final = 1_000
# How long an undeliverable event is kept.
EVENT_RETENTION_S: Final = 86_400


@dataclass(frozen=True, kw_only=True)
class Event:
    """One event for a client's own server. `summary` is of the record, without client's data."""

    event_id: str
    event_type: str
    client_id: str
    dispatch_id: str
    at_ms: int
    summary: dict[str, Any]
    tries: int
    error: str = ""
    read_at_ms: int = 0


@dataclass(frozen=True)
class DueEvent:
    """An event that a webhook worker must deliver now; it holds the claim until `good_till_ms`."""

    event_id: str
    dispatch_id: str
    room_name: str
    good_till_ms: int


def _parse(fields: dict[str, str], **more: str | int) -> Event:
    read: dict[str, Any] = {
        "at_ms": int(fields["at_ms"]),
        "summary": json.loads(fields["summary"]),
        "tries": int(fields["tries"]),
    }
    return of_any_release(Event, fields | read | more)


def want_events(client_ids: Sequence[str]) -> Step[int]:
    """Have events written for these clients, too, for as long as an event is kept.

    Other workers may name other clients: during an upgrade their files of clients differ.
    """
    return Step("want_events", (keys.NOTIFIED,), tuple(client_ids), int)


def claim(client_ids: Sequence[str], *, limit: int, push_s: float) -> Step[list[DueEvent]]:
    """Take up to `limit` due events of each client; they are due again in `push_s`."""

    def parse(reply: tuple[int, list[tuple[str, str, str]]]) -> list[DueEvent]:
        good_till_ms, claimed = reply
        return [DueEvent(*names, good_till_ms) for names in claimed]

    outboxes = tuple(keys.outbox(client_id) for client_id in client_ids)
    args = (limit, ms(push_s))
    return Step("claim_events", outboxes, args, parse)


def read(event_id: str) -> Step[Event | None]:
    """Return the event; None when it has been delivered or given up."""

    def parse(reply: tuple[int, list[str]]) -> Event | None:
        read_at_ms, flat = reply
        return _parse(pairs(flat), event_id=event_id, read_at_ms=read_at_ms) if flat else None

    return Step("read_event", (keys.event(event_id),), (), parse)


def _keys(event: Event) -> tuple[str, str, str]:
    client_id = event.client_id
    return keys.event(event.event_id), keys.outbox(client_id), keys.dispatch_metrics(client_id)


def sent(event: Event) -> Step[int]:
    """Note that the event has been delivered."""
    return Step("event_sent", _keys(event), (event.event_id,), int)


def later(event: Event, *, due_in_s: float, error: str = "") -> Step[int]:
    """Have the event tried (again) in `due_in_s`; with an `error` a try has failed."""
    args = (event.event_id, ms(due_in_s), error)
    return Step("event_later", _keys(event), args, int)


def bury(event: Event, *, error: str) -> Step[int]:
    """Give the event up after its last failed try: keep it among the dead events."""
    dead_key = keys.dead_events(event.client_id)
    args = (event.event_id, error, DEAD_MAX)
    return Step("event_dead", (*_keys(event), dead_key), args, int)


def dead(client_id: str) -> Step[list[Event]]:
    """Return the given-up events of one client, the latest first."""

    def parse(reply: list[str]) -> list[Event]:
        return [_parse(json.loads(text)) for text in reply]

    return Step("command", (keys.dead_events(client_id),), ("LRANGE", 0, -1), parse)


def resend(client_id: str, event_id: str = "") -> Step[int]:
    """Put one dead event, or all, back into the outbox with the same id; return how many."""
    places = (keys.dead_events(client_id), keys.outbox(client_id))
    return Step("resend", places, (event_id,), int)
