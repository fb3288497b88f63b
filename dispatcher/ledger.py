"""What is the truth about a dispatch, and how is it changed?

Every operation is a `Step`: one Lua script, so one atomic round trip, described without doing it;
`store.py` carries steps out, blocking or with asyncio. What else is kept in Redis: `leases.py`
(which agents are alive), `reports.py` (which parts are at work); the keys are in `keys.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Generic, TypeVar

from dispatcher import keys
from dispatcher.errors import Overloaded
from dispatcher.inflight import NOT_IN_FLIGHT, InFlight
from dispatcher.models import (
    END_MARGIN_S,
    TERMINAL,
    Dispatch,
    DispatchRef,
    NewDispatch,
    RememberedDispatch,
    State,
    Transition,
)
from dispatcher.records import parse_dispatch

T = TypeVar("T")

TIME_TO_JOIN_BUCKETS_MS: Final = (250, 500, 1000, 2000, 3000, 5000, 10_000, 20_000)


@cache
def script(name: str) -> str:
    """Source of `lua/<name>.lua`."""
    return (resources.files("dispatcher") / "lua" / f"{name}.lua").read_text("utf-8")


@dataclass(frozen=True)
class Step(Generic[T]):
    """One atomic operation on the ledger: a script, its keys and arguments, its answer's reader."""

    script_name: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    parse: Callable[[Any], T]


@dataclass(frozen=True, kw_only=True)
class Created:
    """Answer to `create`: the id of the new record, or of the live one that was there already."""

    dispatch_id: str
    state: State
    new: bool


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """Answer to `advance`: whether the record changed, and where it stands now."""

    outcome: str
    state: str
    generation: int
    job_id: str

    @property
    def applied(self) -> bool:
        """True when the fact is in the record now (moved on, or noted)."""
        return self.outcome in ("moved", "noted")

    @property
    def moved(self) -> bool:
        """True when this very step changed the state."""
        return self.outcome == "moved"


def keys_of_new_record(new: NewDispatch | RememberedDispatch) -> tuple[str, ...]:
    """The keys that `create.lua` and `restore.lua` write."""
    return (
        keys.record(new.dispatch_id),
        keys.timeline(new.dispatch_id),
        keys.DUE,
        keys.live(new.client_id, new.agent_name, new.room_name),
        keys.dispatch_metrics(new.client_id),
        keys.index(new.client_id),
        keys.open_sessions(new.client_id),
    )


def create(
    new: NewDispatch, *, due_in_s: float, detail: Mapping[str, str], max_backlog: int = 0
) -> Step[Created]:
    """Write the record of a new dispatch; a live one for client, room and agent wins over it.

    Running it raises `Overloaded`, with nothing written, when `max_backlog` (0: any number)
    sessions of all clients are on their way already.
    """
    fields = {
        key: value
        for key, value in asdict(new).items()
        if key not in ("dispatch_id", "deadline_ms") and value != ""
    }
    return Step(
        "create",
        keys_of_new_record(new),
        (
            keys.RECORD_PREFIX,
            new.dispatch_id,
            str(new.deadline_ms),
            str(int(due_in_s * 1000)),
            json.dumps(dict(detail)),
            str(max_backlog),
            *(text for pair in fields.items() for text in pair),
        ),
        _created,
    )


def _created(reply: list[str]) -> Created:
    if reply[0] == "overloaded":
        raise Overloaded("too many sessions wait for their agents already")
    return Created(dispatch_id=reply[1], state=State(reply[2]), new=reply[0] == "created")


def advance(
    dispatch: DispatchRef,
    transition: Transition,
    *,
    due_in_s: float | None = None,
    fields: Mapping[str, str] | None = None,
    attempt: Mapping[str, str] | None = None,
    detail: Mapping[str, str] | None = None,
    before: str = "",
    metrics: Mapping[str, int] | None = None,
    metrics_key: str = "",
    deadline_in_s: float | None = None,
    retention_s: int = 0,
    lease_s: float | None = None,
    losses: int | None = None,
    inflight: InFlight = NOT_IN_FLIGHT,
) -> Step[Advanced]:
    """Carry out `transition` if the record is still in `dispatch`'s generation.

    Args:
        due_in_s: when somebody must look again, at the latest just before the deadline; None takes
            the record off the due list.
        attempt: fields of this generation's attempt.
        before: an event to put into the timeline before the transition's own.
        retention_s: how long a record that ends here is kept; 0 is for ever.
        deadline_in_s: start the clock anew (for a redispatch by hand, or a lost agent).
        lease_s: how long the agent counts as alive without a word; 0 has it looked at now. None
            takes the record off the list of leases when it moves.
        losses: agents that this dispatch has lost in a row, this one included.
        inflight: what the change means for those on their way to the same agent (`inflight.py`).
    """
    order: dict[str, Any] = {
        "id": dispatch.dispatch_id,
        "generation": dispatch.generation,
        "moves": dict.fromkeys(transition.moves, True),
        "notes": dict.fromkeys(transition.notes, True),
        "to": transition.to,
        "fields": dict(fields or {}),
        "attempt": dict(attempt or {}),
        "attempt_generation": dispatch.generation,
        "events": [before, transition.event] if before else [transition.event],
        "detail": json.dumps(dict(detail or {})),
        "metrics": dict(metrics or {}),
        "channel": keys.wake_channel(dispatch.dispatch_id),
        "new_generation": transition.new_generation,
        "revive": deadline_in_s is not None,
        "anew": transition.anew,
        "terminal": transition.to in TERMINAL,
        "retention_s": retention_s,
        **inflight.order(dispatch.agent_name),
    }
    if due_in_s is not None:
        order["due_in_ms"] = int(due_in_s * 1000)
        order["end_margin_ms"] = int(END_MARGIN_S * 1000)
    if losses is not None:
        order["losses"] = losses
    if lease_s is not None:
        order["lease_ms"] = int(lease_s * 1000)
    if deadline_in_s is not None:
        order["deadline_in_ms"] = int(deadline_in_s * 1000)
    return Step(
        "advance",
        (
            keys.record(dispatch.dispatch_id),
            keys.attempts(dispatch.dispatch_id),
            keys.timeline(dispatch.dispatch_id),
            keys.DUE,
            keys.live(dispatch.client_id, dispatch.agent_name, dispatch.room_name),
            metrics_key or keys.dispatch_metrics(dispatch.client_id),
            keys.LEASES,
            keys.WAITING,
            keys.open_sessions(dispatch.client_id),
            keys.inflight(dispatch.agent_name),
            keys.window(dispatch.agent_name),
            keys.AGENT_SERVERS,
        ),
        (json.dumps(order),),
        lambda reply: Advanced(
            outcome=reply[0], state=reply[1], generation=int(reply[2]), job_id=reply[3]
        ),
    )


def read(dispatch_id: str) -> Step[Dispatch | None]:
    """The whole record in one consistent look; None when there is none."""
    return Step(
        "read",
        (keys.record(dispatch_id), keys.attempts(dispatch_id), keys.timeline(dispatch_id)),
        (),
        lambda reply: parse_dispatch(dispatch_id, *reply),
    )


def claim_due(*, limit: int, push_s: float) -> Step[list[str]]:
    """Take up to `limit` dispatch ids whose time has come, oldest first, and push it on."""
    return Step("claim_due", (keys.DUE,), (str(limit), str(int(push_s * 1000))), list)


def defer(dispatch_id: str, *, due_in_s: float) -> Step[int]:
    """Have a record that is on the due list looked at again in `due_in_s`."""
    return Step("defer", (keys.DUE,), (dispatch_id, str(int(due_in_s * 1000))), int)
