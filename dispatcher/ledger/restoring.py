"""Restoration of records that Redis has lost, or never had.

Web processes remember the dispatches that they have accepted, agents those that they serve; both
can write the record again. The next look at it goes by what LiveKit says.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from dispatcher.domain.models import FailureReason, RememberedDispatch, State
from dispatcher.ledger import keys
from dispatcher.ledger.dispatches import fields_of_new_record, keys_of_new_record
from dispatcher.ledger.step import Step
from dispatcher.observability import state_changes
from dispatcher.observability.state_changes import Change

# Keys of one call, so that no call holds Redis up for long.
STANDING_LIMIT: Final = 500

# The web process, which accepted the dispatch from a client that had shown its key.
WEB: Final = "web"


class Restored(StrEnum):
    """The ledger's answer to a remembered record."""

    RESTORED = "restored"
    EXISTS = "exists"
    OCCUPIED = "occupied"  # another dispatch serves the room; this record is `cancelled`


def restore(dispatch: RememberedDispatch, *, by: str, retention_s: int) -> Step[Restored]:
    """Write the record of `dispatch` unless Redis has it; it is due at once.

    Args:
        by: the process that remembers it, for the timeline. `WEB` knows the dispatch's client: a
            record with that id of another client is replaced.
        retention_s: how long a record that is closed here is kept.
    """
    detail = {"by": by}
    return Step(
        "restore",
        (*keys_of_new_record(dispatch), keys.NOTIFIED, keys.outbox(dispatch.client_id)),
        (
            dispatch.dispatch_id,
            dispatch.state,
            dispatch.generation,
            dispatch.age_ms,
            dispatch.deadline_ms,
            json.dumps(detail),
            FailureReason.SUPERSEDED,
            "the room has another dispatch by now: ",
            retention_s,
            dispatch.client_id,
            int(by == WEB),
            *fields_of_new_record(dispatch),
        ),
        Restored,
        lambda restored: _tell(dispatch, detail, restored),
    )


def _tell(dispatch: RememberedDispatch, detail: Mapping[str, str], restored: Restored) -> None:
    if restored is Restored.EXISTS:
        return
    closed = restored is Restored.OCCUPIED
    change = Change(
        event="superseded" if closed else "restored",
        generation=dispatch.generation,
        from_state="",
        to_state=State.CANCELLED if closed else dispatch.state,
        detail=detail,
    )
    state_changes.tell(dispatch, change)


@dataclass(frozen=True, kw_only=True)
class Standing:
    """State of remembered dispatches: those that have no record, and those that have ended."""

    missing: frozenset[str]
    ended: frozenset[str]
    at_ms: int  # by the ledger's clock


def standing(dispatch_ids: Sequence[str], client_ids: Sequence[str] = ()) -> Step[Standing]:
    """Return the state of at most `STANDING_LIMIT` dispatches.

    With `client_ids`, one for each, another client's record counts as missing.
    """

    def parse(reply: Sequence[Any]) -> Standing:
        *lists, at_ms = reply
        missing, ended = (frozenset(dispatch_ids[at - 1] for at in found) for found in lists)
        return Standing(missing=missing, ended=ended, at_ms=at_ms)

    return Step(
        "standing",
        tuple(keys.record(dispatch_id) for dispatch_id in dispatch_ids),
        tuple(client_ids),
        parse,
    )


def birth(seen: str) -> Step[tuple[str, bool]]:
    """Return Redis's mark, and whether it differs from `seen`: then Redis has lost its data."""
    return Step(
        "birth",
        (keys.BIRTH, keys.LEDGER_METRICS),
        (seen, secrets.token_hex(8)),
        lambda reply: (reply[0], reply[1] == 1),
    )
