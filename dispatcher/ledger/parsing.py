"""Parse Redis's answers into records."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields as fields_of
from functools import cache
from typing import Any, Final, TypeVar

from dispatcher.domain.models import Attempt, Dispatch, State, TimelineEvent
from dispatcher.errors import UnreadableRecord

T = TypeVar("T")

# How a field of a record is read, by its type in `Dispatch`; the others are text.
_BY_TYPE: Final[Mapping[Any, Callable[[str], Any]]] = {
    "int": int,
    "int | None": lambda text: int(text) if text else None,
    "bool": lambda text: text == "1",
    "State": State,
}
_READERS: Final = {
    each.name: _BY_TYPE[each.type] for each in fields_of(Dispatch) if each.type in _BY_TYPE
}


def of_any_release(cls: type[T], fields: dict[str, Any]) -> T:
    """Return a `cls` of these fields, without fields that this release does not know.

    During a rolling upgrade a newer release writes more, and this one must go on working.
    """
    known = _names(cls)  # type: ignore[arg-type]  # every class is hashable
    return cls(**{name: value for name, value in fields.items() if name in known})


@cache  # used for each event of each record that is read
def _names(cls: type) -> frozenset[str]:
    return frozenset(field.name for field in fields_of(cls))


def pairs(flat: Sequence[str]) -> dict[str, str]:
    """Return a hash, which Redis answers as names and values in turn."""
    return dict(zip(flat[::2], flat[1::2], strict=True))


def numbers(flat: Sequence[str]) -> dict[str, int]:
    """As `pairs`, of a hash of whole numbers."""
    return {name: int(value) for name, value in pairs(flat).items()}


def _parse_attempts(flat: list[str]) -> tuple[Attempt, ...]:
    by_generation: dict[int, dict[str, Any]] = {}
    for name, value in pairs(flat).items():
        generation, _, key = name.partition(".")
        by_generation.setdefault(int(generation), {})[key] = value
    for number, fields in by_generation.items():
        fields["generation"] = number
        fields["tries"] = int(fields.get("tries", 0))
        fields["errors"] = tuple(json.loads(fields.get("errors", "[]")))
    return tuple(of_any_release(Attempt, fields) for _, fields in sorted(by_generation.items()))


def parse_dispatch(
    dispatch_id: str, now_ms: int, record: list[str], attempts: list[str], timeline: list[str]
) -> Dispatch | None:
    """Return the record from the answer of `lua/read.lua`; None when there is none.

    Raises:
        UnreadableRecord: it makes no sense.
    """
    if not record:
        return None
    fields: dict[str, Any] = pairs(record)
    if "unreadable" in fields:
        raise UnreadableRecord(f"it is no record: {fields['unreadable']}")
    try:
        fields |= {name: read(fields[name]) for name, read in _READERS.items() if name in fields}
        fields |= {
            "dispatch_id": dispatch_id,
            "read_at_ms": now_ms,
            "attempts": _parse_attempts(attempts),
            "timeline": tuple(map(parse_event, timeline)),
        }
        return of_any_release(Dispatch, fields)
    except (KeyError, TypeError, ValueError) as error:
        told = f"{type(error).__name__}: {error}"
        raise UnreadableRecord(told, client_id=fields.get("client_id", "")) from error


def parse_event(text: str) -> TimelineEvent:
    """Return an event of a timeline."""
    return of_any_release(TimelineEvent, json.loads(text))
