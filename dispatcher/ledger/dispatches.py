"""Steps that create, change and read the record of a dispatch.

Every operation is a `Step` (`ledger/step.py`): one Lua script, so one atomic round trip. Other
steps: `ledger/leases.py` (agents alive), `ledger/reports.py` (parts at work).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from pydantic_core import to_json

from dispatcher.domain import quotas
from dispatcher.domain.models import Dispatch, DispatchRef, Limits, NewDispatch, State
from dispatcher.domain.quotas import NO_ADMISSION, Admission
from dispatcher.errors import TooLate
from dispatcher.ledger import celery_messages, keys
from dispatcher.ledger.advance import Advance
from dispatcher.ledger.parsing import parse_dispatch
from dispatcher.ledger.step import Step, ms
from dispatcher.observability import state_changes
from dispatcher.observability.state_changes import Change

# How long a request with an `Idempotency-Key` is remembered.
IDEMPOTENCY_S: Final = 86_400
# Parts of a new dispatch that its record has under another name, or in its keys.
_WRITTEN_OTHERWISE: Final = frozenset(
    {"dispatch_id", "generation", "state", "age_ms", "deadline_ms"}
)


@dataclass(frozen=True, kw_only=True)
class Once:
    """A request with an `Idempotency-Key`: digests of key and request, and the answer to repeat."""

    key_digest: str
    request_digest: str
    room_name: str
    identity: str


@dataclass(frozen=True, kw_only=True)
class Created:
    """Answer to `create`: the id of the new record, or of the live one that was there already."""

    dispatch_id: str
    state: State
    new: bool
    room_name: str = ""  # this and `identity`: when the same request was answered before
    identity: str = ""
    conflict: bool = False  # another request came with its `Idempotency-Key`
    over: bool = False  # not written: the live one's people have left, its metadata is another


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """Answer to `advance`: whether the record changed, and its state now."""

    outcome: str
    state: str
    generation: int
    job_id: str
    state_before: str = ""  # if applied

    @property
    def applied(self) -> bool:
        """True when the fact is in the record now (moved or noted)."""
        return self.outcome in ("moved", "noted")

    @property
    def moved(self) -> bool:
        """True when this very step changed the state."""
        return self.outcome == "moved"


def keys_of_new_record(new: NewDispatch) -> tuple[str, ...]:
    """Return the keys that `create.lua` and `restore.lua` write."""
    return (
        keys.record(new.dispatch_id),
        keys.timeline(new.dispatch_id),
        keys.DUE,
        keys.live(new.client_id, new.agent_name, new.room_name),
        keys.dispatch_metrics(new.client_id),
        keys.index(new.client_id),
        keys.open_sessions(new.client_id),
    )


def fields_of_new_record(new: NewDispatch) -> tuple[str, ...]:
    """Return the fields that `create.lua` and `restore.lua` write as they are: name, value, ..."""
    fields = ((name, value) for name, value in vars(new).items() if name not in _WRITTEN_OTHERWISE)
    return tuple(text for name, value in fields if value != "" for text in (name, value))


def create(
    new: NewDispatch,
    *,
    due_in_s: float,
    detail: Mapping[str, str],
    admission: Admission = NO_ADMISSION,
    once: Once | None = None,
    not_after_ms: float | None = None,
) -> Step[Created]:
    """Write the record of a new dispatch, with the message that wakes a worker for it.

    A live one for client, room and agent wins over it. A paced dispatch is woken by the sweeper, in
    its turn. Running it raises, with nothing written, as `quotas.check`, and `TooLate`.

    Args:
        once: the same request gets its first answer again for `IDEMPOTENCY_S`.
        not_after_ms: later, by the ledger's clock, it is `TooLate`; None: the caller waits.
    """
    wake_up = celery_messages.dispatch(new.dispatch_id, new.room_name)
    order = {
        "id": new.dispatch_id,
        "deadline_ms": new.deadline_ms,
        "due_in_ms": ms(due_in_s),
        "detail": to_json(detail).decode(),
        "limits": admission.order(),
        "once": vars(once) if once else False,
        "wake": vars(wake_up),
        "not_after_ms": not_after_ms or False,  # in Lua null would be true
    }
    return Step(
        "create",
        (
            *keys_of_new_record(new),
            keys.rate(new.client_id, admission.limits.bucket),
            keys.pace(new.client_id),
            keys.idempotency(new.client_id, once.key_digest if once else ""),
            wake_up.queue,
            keys.BUSY,
        ),
        (to_json(order).decode(), *fields_of_new_record(new)),
        lambda reply: _created(reply, new, admission.limits),
        lambda created: _tell_created(created, new, detail),
    )


def count_request(client_id: str, limits: Limits, *, only_look: bool = False) -> Step[None]:
    """Count a request that makes no record, because it is refused.

    Running it raises `LimitReached`, and counts nothing, when the client has used up its requests.

    Args:
        only_look: check the limit without counting.
    """
    return Step(
        "count_request",
        (keys.rate(client_id, limits.bucket),),
        (limits.requests_per_minute, int(not only_look)),
        lambda early_ms: quotas.check(
            "too_many_requests" if early_ms else "counted", limits, wait_ms=(early_ms,)
        ),
    )


def _created(reply: Sequence[Any], new: NewDispatch, limits: Limits) -> Created:
    if reply[0] == "created":
        return Created(dispatch_id=new.dispatch_id, state=State.QUEUED, new=True)
    if reply[0] == "late":
        raise TooLate
    quotas.check(reply[0], limits, wait_ms=reply[1:2])
    outcome, existing_id, *rest = reply
    state, room_name, identity = [*rest, "", "", ""][:3]
    return Created(
        dispatch_id=existing_id,
        state=State(state or State.ENDED),
        new=False,
        room_name=room_name,
        identity=identity,
        conflict=outcome == "conflict",
        over=outcome == "over",
    )


def _tell_created(created: Created, new: NewDispatch, detail: Mapping[str, str]) -> None:
    if created.new:
        state_changes.tell_created(new, detail)


def advance(command: Advance) -> Step[Advanced]:
    """Move the record to its next state if its generation is still the caller's.

    For a record of another client than the dispatch's the answer is `unknown`. Running it raises
    `LimitReached` or `Overloaded` where its client may not ask for that.
    """
    return Step(
        "advance",
        command.keys(),
        (command.order(),),
        lambda reply: _advanced(reply, command.provided.admission),
        lambda done: _tell(command, done),
    )


def _advanced(reply: Sequence[Any], admission: Admission | None) -> Advanced:
    outcome, state, generation, job_id, *before = reply
    if admission is not None:
        quotas.check(outcome, admission.limits, wait_ms=[job_id])
    return Advanced(
        outcome=outcome,
        state=state,
        generation=int(generation),
        job_id=job_id,
        state_before=before[0] if before else "",
    )


def _tell(command: Advance, done: Advanced) -> None:
    """Log and trace a step: each event of the timeline once, from state to state."""
    if not done.applied:
        return
    is_at = done.state_before
    for event in command.events:
        # An event before the transition's own has the name of the intermediate state.
        to = done.state if event == command.events[-1] or not done.moved else event
        change = Change(
            event=event,
            generation=done.generation,
            from_state=is_at,
            to_state=to,
            detail=command.detail or {},
        )
        state_changes.tell(command.dispatch, change)
        is_at = to


def read(dispatch_id: str, *, history: bool = True, timeline: bool = True) -> Step[Dispatch | None]:
    """Return the record in one consistent read; None when there is none.

    Without `history` it has no attempts and no timeline: 250 of them cost more than all else of a
    request. Without `timeline` it has attempts only, as most decisions need them. Text that cannot
    be an id has no record: ids come from other parties, and `<id>:attempts` is another key of
    Usher's. Running it raises `UnreadableRecord`.
    """
    known = dispatch_id if keys.is_dispatch_id(dispatch_id) else ""
    events = keys.timeline(known) if timeline else ""
    more = (keys.attempts(known), events) if history else ()
    return Step(
        "read",
        (keys.record(known), *more),
        (),
        lambda reply: parse_dispatch(dispatch_id, *reply),
    )


def claim_due(*, limit: int, push_s: float) -> Step[list[str]]:
    """Take up to `limit` due dispatch ids, the clients in turn, and push their due times on.

    While the dispatch queue is as long as that, dispatches that wait in it and have time left are
    left to their own messages.
    """
    args = (limit, ms(push_s))
    return Step("claim_due", (keys.DUE, keys.DISPATCH_QUEUE), args, list)


def defer(dispatch_id: str, *, due_in_s: float) -> Step[int]:
    """Move the due time of a record on the due list to `due_in_s` from now."""
    return Step("defer", (keys.DUE,), (dispatch_id, ms(due_in_s)), int)


def serving(dispatch: DispatchRef) -> Step[str]:
    """Return the id of the room's live dispatch; "" if there is none."""
    live = keys.live(dispatch.client_id, dispatch.agent_name, dispatch.room_name)
    return Step("command", (live,), ("GET",), lambda found: found or "")
