"""Parse Redis's answers into records."""

from __future__ import annotations

import json
from dataclasses import fields as fields_of
from functools import cache
from typing import Any, TypeVar

from dispatcher.domain.models import Attempt, Dispatch, State, TimelineEvent
from dispatcher.errors import UnreadableRecord

T = TypeVar("T")


def of_any_release(cls: type[T], fields: dict[str, Any]) -> T:
    """Return a `cls` of these fields, without fields that this release does not know.

    During a rolling upgrade a newer release writes more, and this one must go on working.
    """
    known = _names(cls)  # type: ignore[arg-type]  # every class is hashable
    return cls(**{name: value for name, value in fields.items() if name in known})


@cache  # used for each event of each record that is read
def _names(cls: type) -> frozenset[str]:
    return frozenset(field.name for field in fields_of(cls))


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _parse_attempts(flat: list[str]) -> tuple[Attempt, ...]:
    by_generation: dict[int, dict[str, str]] = {}
    for name, value in _pairs(flat).items():
        generation, _, key = name.partition(".")
        by_generation.setdefault(int(generation), {})[key] = value
    return tuple(
        Attempt(
            generation=generation,
            livekit_dispatch_id=fields.get("livekit_dispatch_id", ""),
            tries=int(fields.get("tries", 0)),
            errors=tuple(json.loads(fields.get("errors", "[]"))),
            outcome=fields.get("outcome", ""),
            reason=fields.get("reason", ""),
        )
        for generation, fields in sorted(by_generation.items())
    )


def _optional_int(text: str | None) -> int | None:
    return int(text) if text else None


def parse_dispatch(
    dispatch_id: str, now_ms: int, record: list[str], attempts: list[str], timeline: list[str]
) -> Dispatch | None:
    """Return the record from the answer of `lua/read.lua`; None when there is none.

    Raises:
        UnreadableRecord: it makes no sense.
    """
    if not record:
        return None
    fields: dict[str, Any] = _pairs(record)
    client_id = fields.get("client_id", "")
    if "unreadable" in fields:
        raise UnreadableRecord(f"it is no record: {fields['unreadable']}")
    try:
        return _parse(dispatch_id, now_ms, fields, attempts, timeline)
    except (KeyError, TypeError, ValueError) as error:
        told = f"{type(error).__name__}: {error}"
        raise UnreadableRecord(told, client_id=client_id) from error


def _parse(
    dispatch_id: str,
    now_ms: int,
    fields: dict[str, Any],
    attempts: list[str],
    timeline: list[str],
) -> Dispatch:
    fields["asked_at_ms"] = int(fields.get("asked_at_ms", 0))
    fields["joined_seen_at_ms"] = int(fields.get("joined_seen_at_ms", 0))
    for name in ("generation", "created_at_ms", "requested_at_ms", "updated_at_ms"):
        fields[name] = int(fields[name])
    fields["deadline_at_ms"] = int(fields["deadline_at_ms"])
    for name in ("joined_at_ms", "time_to_join_ms"):
        fields[name] = _optional_int(fields.get(name))
    fields["alive_till_ms"] = int(fields.get("alive_till_ms", 0))
    fields["look_at_ms"] = int(fields.get("look_at_ms", 0))
    fields["first_generation"] = int(fields.get("first_generation", 1))
    fields["losses"] = int(fields.get("losses", 0))
    fields["timeline_dropped"] = int(fields.get("timeline_dropped", 0))
    fields["attempts_dropped"] = int(fields.get("attempts_dropped", 0))
    fields["clearing"] = fields.get("clearing") == "1"
    fields["person_seen"] = fields.get("person_seen") == "1"
    fields["unattended"] = fields.get("unattended") == "1"
    fields["state"] = State(fields["state"])
    fields |= {
        "dispatch_id": dispatch_id,
        "read_at_ms": now_ms,
        "attempts": _parse_attempts(attempts),
        "timeline": tuple(of_any_release(TimelineEvent, json.loads(text)) for text in timeline),
    }
    return of_any_release(Dispatch, fields)
