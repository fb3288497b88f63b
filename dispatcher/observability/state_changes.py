"""Log each state change of a record, in one line, and add it to the trace of its dispatch.

Called where the change is carried out (`ledger/client.py`), so that every change is told, and told
once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from dispatcher.domain.models import DispatchRef, NewDispatch, State
from dispatcher.observability import tracing

logger = logging.getLogger(__name__)

# An operator may want to be alerted for these.
_WARNINGS: Final = frozenset(
    {
        "failed",
        "agent_lost",
        "agent_crashed",
        "foreign_agent",
        "livekit_unreachable",
        "superseded",
        "restored",
        "adopted",
        "surplus_agent",
    }
)
# Names of log fields that logging, or Usher itself, uses already.
_RENAMED: Final = {"message": "why", "name": "who", "container": "agent_container"}


@dataclass(frozen=True, kw_only=True)
class Change:
    """One event of a record's timeline, and the states before and after it."""

    event: str
    generation: int
    from_state: str
    to_state: str
    detail: Mapping[str, str] = field(default_factory=dict)


def log_fields(of: DispatchRef | NewDispatch) -> dict[str, object]:
    """Return the fields of every log line about a dispatch, with the trace id if there is one."""
    fields: dict[str, object] = {
        "dispatch_id": of.dispatch_id,
        "client_id": of.client_id,
        "room": of.room_name,
    }
    if of.traceparent:
        fields["trace_id"] = tracing.trace_id(of.traceparent)
    return fields


def span_attributes(of: DispatchRef | NewDispatch) -> dict[str, tracing.Value]:
    """Return the attributes of every span about a dispatch."""
    return {
        "usher.dispatch_id": of.dispatch_id,
        "usher.client_id": of.client_id,
        "usher.room": of.room_name,
        "usher.agent_name": of.agent_name,
        "usher.generation": of.generation if isinstance(of, DispatchRef) else 1,
    }


def tell(of: DispatchRef | NewDispatch, change: Change) -> None:
    """Log a change, and add it to the dispatch's trace."""
    _log(of, change)
    if not tracing.on():
        return
    attributes: dict[str, tracing.Value] = {
        "usher.generation": change.generation,
        "usher.from_state": change.from_state,
        "usher.to_state": change.to_state,
    }
    if reason := change.detail.get("reason"):
        attributes["usher.reason"] = reason
    about = {**span_attributes(of), "usher.generation": change.generation}
    tracing.happened(change.event, attributes, parent=of.traceparent, about=about)


def tell_created(new: NewDispatch, detail: Mapping[str, str]) -> None:
    """Log a new record. Its trace has just begun, with the span of its request."""
    to = State.QUEUED
    _log(new, Change(event="queued", generation=1, from_state="", to_state=to, detail=detail))


def _log(of: DispatchRef | NewDispatch, change: Change) -> None:
    details: dict[str, object] = {
        _RENAMED.get(name, name): int(value) if value.isdecimal() else value
        for name, value in change.detail.items()
    }
    logger.log(
        logging.WARNING if change.event in _WARNINGS else logging.INFO,
        change.event,
        extra={
            **details,
            **log_fields(of),
            "agent_name": of.agent_name,
            "generation": change.generation,
            "from_state": change.from_state,
            "to_state": change.to_state,
        },
    )
