"""What is the truth about a dispatch, and how is it changed?

Every operation is a `Step`: one Lua script, so one atomic round trip, described without doing it;
`store.py` carries steps out, blocking or with asyncio. What else is kept in Redis: `leases.py`
(which agents are alive), `reports.py` (which parts are at work); the keys are in `keys.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Generic, TypeVar

from pydantic_core import to_json

from dispatcher import keys, messages, quotas, transitions
from dispatcher.errors import TooLate
from dispatcher.inflight import NOT_IN_FLIGHT, WINDOW_S, InFlight
from dispatcher.messages import Wake
from dispatcher.metrics import BOUNDS, NOTHING_COUNTED, OPEN_STATES, AgentCounts
from dispatcher.models import (
    END_MARGIN_S,
    NO_LIMITS,
    TERMINAL,
    Dispatch,
    DispatchRef,
    Limits,
    NewDispatch,
    RememberedDispatch,
    State,
    Transition,
)
from dispatcher.quotas import AT_ONCE, PACE_MS, Admission, Clearing
from dispatcher.records import parse_dispatch
from dispatcher.transitions import Change

T = TypeVar("T")

# How long a request with an `Idempotency-Key` is known.
IDEMPOTENCY_S: Final = 86_400


# What a client's own server is told of.
ANNOUNCED: Final = frozenset({State.JOINED, *TERMINAL})
# How long an event is kept that nobody can deliver.
EVENT_RETENTION_S: Final = 86_400
# What other scripts are part of a script, in this order; and `clock` of each that asks it.
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "advance": ("announce", "counting", "stages", "window", "limits", "bounds"),
    "create": ("counting", "limits"),
    "count_request": ("limits",),
    "on_their_way": ("window",),
    "claim_due": ("push",),
    "pick_waiting": ("push",),
    "restore": ("announce", "counting"),
    "list": ("pages",),
    "search": ("pages",),
    "read": ("fresh_reports",),
    "fresh": ("fresh_reports",),
    **dict.fromkeys(("count", "event_sent", "event_later", "event_dead"), ("counting",)),
}


def _source(name: str) -> str:
    return (resources.files("dispatcher") / "lua" / f"{name}.lua").read_text("utf-8")


def _lua_constants() -> str:
    """What the scripts must know that ask the clock."""
    return (
        f"local CLOCK = '{keys.CLOCK}'\n"
        f"local END_MARGIN_MS, WINDOW_MS = {END_MARGIN_S * 1000:.0f}, {WINDOW_S * 1000:.0f}\n"
    )


def _lua_tables() -> str:
    """What Lua must know of the metrics: the bounds, and the score of each open state."""
    bounds = ", ".join(
        f"{name} = {{{', '.join(map(str, values))}}}" for name, values in BOUNDS.items()
    )
    places = ", ".join(f"{state} = {place}" for place, state in enumerate(OPEN_STATES, 1))
    return f"local BOUNDS = {{{bounds}}}\nlocal PLACES = {{{places}}}\n"


@cache
def script(name: str) -> str:
    """Source of `lua/<name>.lua`, with the functions of other files where it uses them."""
    parts = _PARTS.get(name, ())
    source = (_lua_tables() if "counting" in parts else "") + "".join(
        _source(part) for part in (*parts, name)
    )
    asks_the_clock = "clock()" in source
    return (_lua_constants() + _source("clock") if asks_the_clock else "") + source


def announcement(dispatch: DispatchRef) -> dict[str, Any]:
    """What `announce.lua` needs to write an event of that dispatch into the outbox."""
    return {
        "id": dispatch.dispatch_id,
        "client": dispatch.client_id,
        "prefix": keys.EVENT_PREFIX,
        "retention_s": EVENT_RETENTION_S,
    }


@dataclass(frozen=True)
class Step(Generic[T]):
    """One atomic operation on the ledger: a script, its keys and arguments, its answer's reader.

    `tell` is what is said to the log and the trace once it has been carried out, if anything.
    """

    script_name: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    parse: Callable[[Any], T]
    tell: Callable[[T], None] | None = None


@dataclass(frozen=True, kw_only=True)
class Once:
    """A request with an `Idempotency-Key`: digests of key and request, and what it is to get."""

    key_digest: str
    request_digest: str
    room_name: str
    identity: str


@dataclass(frozen=True, kw_only=True)
class Created:
    """Answer to `create`: the id of the new record, or of the live one that was there already.

    `room_name` and `identity` are set when the very request was answered before; `conflict` says
    that another request came with its `Idempotency-Key`; `over` that nothing was written, because
    that live one's people have left and its agent has other metadata.
    """

    dispatch_id: str
    state: State
    new: bool
    room_name: str = ""
    identity: str = ""
    conflict: bool = False
    over: bool = False


@dataclass(frozen=True, kw_only=True)
class Advanced:
    """Answer to `advance`: whether the record changed, and where it stands now."""

    outcome: str
    state: str
    generation: int
    job_id: str
    state_before: str = ""  # when it is applied

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
    new: NewDispatch,
    *,
    due_in_s: float,
    detail: Mapping[str, str],
    limits: Limits = NO_LIMITS,
    paced: bool = False,
    max_backlog: int = 0,
    once: Once | None = None,
    not_after_ms: float | None = None,
) -> Step[Created]:
    """Write the record of a new dispatch; a live one for client, room and agent wins over it.

    The dispatcher is woken by a message that is written with it, except for a paced one, which the
    sweeper wakes in its turn.

    Running it raises `LimitReached`, with nothing written, when the client has used up its
    requests, has all the sessions it may have, or has asked for so many at once that this one would
    be due too late for its deadline; a live dispatch's request makes no session.
    It raises `Overloaded` when too many sessions of all clients are on their way already and this
    client has its share of them, and `TooLate` when Redis has come to it later than
    `not_after_ms`, by the ledger's clock.

    Args:
        paced: there are other clients, who shall not wait behind a long row of this one's.
        max_backlog: how many sessions of all clients may be on their way; 0: any number. Whoever
            has fewer than its share, which is that over the number of clients that have any, may
            have one more even so.
        once: the same request gets for `IDEMPOTENCY_S` what it got first, whatever has become of
            that.
        not_after_ms: its caller is told by then that it has failed; None: somebody waits as long as
            it takes.
    """

    def tell(created: Created) -> None:
        if created.new:
            transitions.tell_created(new, detail)

    fields = {
        key: value
        for key, value in vars(new).items()  # all are plain values; asdict() would copy each
        if key not in ("dispatch_id", "deadline_ms") and value != ""
    }
    wake_up = messages.dispatch(new.dispatch_id, new.room_name)
    return Step(
        "create",
        (
            *keys_of_new_record(new),
            keys.rate(new.client_id, limits.bucket),
            keys.pace(new.client_id),
            keys.idempotency(new.client_id, once.key_digest if once else ""),
            wake_up.queue,
            keys.BUSY,
        ),
        (
            keys.RECORD_PREFIX,
            new.dispatch_id,
            str(new.deadline_ms),
            str(int(due_in_s * 1000)),
            to_json(detail).decode(),
            str(limits.requests_per_minute),
            str(limits.max_sessions),
            str(PACE_MS if paced else 0),
            str(AT_ONCE),
            str(max_backlog),
            _once(once),
            wake_up.message,
            "" if not_after_ms is None else f"{not_after_ms:.0f}",
            *(text for pair in fields.items() for text in pair),
        ),
        lambda reply: _created(reply, new, limits),
        tell,
    )


def count_request(client_id: str, limits: Limits, *, only_look: bool = False) -> Step[None]:
    """Count a request that makes no record, because it is refused.

    Running it raises `LimitReached`, and counts nothing, when the client has used up its requests.

    Args:
        only_look: ask whether there may be one more.
    """
    return Step(
        "count_request",
        (keys.rate(client_id, limits.bucket),),
        (str(limits.requests_per_minute), "0" if only_look else "1"),
        lambda early_ms: _check_rate(int(early_ms), limits),
    )


def _check_rate(early_ms: int, limits: Limits) -> None:
    if early_ms:
        quotas.check("too_many_requests", limits, wait_ms=(early_ms,))


def _once(once: Once | None) -> str:
    if once is None:
        return ""
    return json.dumps(
        {
            "request": once.request_digest,
            "room": once.room_name,
            "identity": once.identity,
            "ttl_s": IDEMPOTENCY_S,
        }
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


def advance(
    dispatch: DispatchRef,
    transition: Transition,
    *,
    due_in_s: float | None = None,
    fields: Mapping[str, str] | None = None,
    attempt: Mapping[str, str] | None = None,
    detail: Mapping[str, str] | None = None,
    before: str = "",
    agent_counts: AgentCounts = NOTHING_COUNTED,
    once: str = "",
    offered_ago_s: float = 0.0,
    not_after_ms: float | None = None,
    deadline_in_s: float | None = None,
    retention_s: int = 0,
    lease_s: float | None = None,
    losses: int | None = None,
    inflight: InFlight = NOT_IN_FLIGHT,
    wake: Wake | None = None,
    any_generation: bool = False,
    unless_asked_for_s: float | None = None,
    deadline_as_before: bool = False,
    admission: Admission | None = None,
    clears: Clearing | None = None,
) -> Step[Advanced]:
    """Carry out `transition` if the record is still in `dispatch`'s generation.

    A record of another client than `dispatch`'s is `unknown`.

    Args:
        due_in_s: when somebody must look again, at the latest just before the deadline; None takes
            the record off the due list.
        attempt: fields of this generation's attempt.
        before: an event to put into the timeline before the transition's own.
        agent_counts: what an agent server counts with it; the rest follows from the change itself.
        once: with the same word nothing is counted a second time, for what may be told twice.
        offered_ago_s: how long ago LiveKit has offered the job, when `before` is that.
        not_after_ms: do nothing (`late`) when Redis comes to it later than that, by its own clock.
        retention_s: how long a record that ends here is kept; 0 is for ever.
        deadline_in_s: start the clock anew (for a redispatch by hand, or a lost agent).
        lease_s: how long the agent counts as alive without a word; 0 has it looked at now. None
            takes the record off the list of leases when it moves.
        losses: agents that this dispatch has lost in a row, this one included.
        inflight: what the change means for those on their way to the same agent (`inflight.py`).
        wake: a worker to be told when it is in the record.
        any_generation: whatever the record's generation is by now.
        unless_asked_for_s: do nothing (`wanted`) when a caller has asked for this session within so
            many seconds.
        deadline_as_before: start the clock anew, with as much time as the request was given.
        admission: do nothing where its client has used up what it may ask for: running it raises
            `LimitReached` or `Overloaded`. Of a client that asks quickly it is due later, and
            `wake` is left to the sweeper; where nothing moves that is a `LimitReached`, too.
        clears: it is due (`due_in_s`), and a worker to be told (`wake`), because something of it
            may be left in its room; not where LiveKit has never been asked for it.
    """
    order: dict[str, Any] = {
        "id": dispatch.dispatch_id,
        "client": dispatch.client_id,
        "moves": dict.fromkeys(transition.moves, True),
        "notes": dict.fromkeys(transition.notes, True),
        "to": transition.to,
        "fields": dict(fields or {}),
        "attempt": dict(attempt or {}),
        "events": [before, transition.event] if before else [transition.event],
        "detail": json.dumps(dict(detail or {})),
        "agent_counts": dict(agent_counts.increments),
        "channel": keys.wake_channel(dispatch.dispatch_id),
        "new_generation": transition.new_generation,
        "revive": deadline_in_s is not None or deadline_as_before,
        "wake": wake.message if wake else False,
        "anew": transition.anew,
        "terminal": transition.to in TERMINAL,
        "frees_room": transition.to in TERMINAL or transition.to is State.LEAVING,
        "retention_s": retention_s,
        **inflight.order(dispatch.agent_name),
    }
    optional = {
        "generation": None if any_generation else dispatch.generation,
        "once": once or None,
        "offered_ago_ms": _ms(offered_ago_s or None),
        "not_after_ms": not_after_ms,
        "unless_asked_ms": _ms(unless_asked_for_s),
        "deadline_as_before": deadline_as_before or None,
        "due_in_ms": _ms(due_in_s),
        "end_margin_ms": _ms(None if due_in_s is None else END_MARGIN_S),
        "announce": announcement(dispatch) if transition.to in ANNOUNCED else None,
        "losses": losses,
        "lease_ms": _ms(lease_s),
        "deadline_in_ms": _ms(deadline_in_s),
        "limits": None if admission is None else admission.order(),
        "clears": None if clears is None else clears.order(),
    }
    order |= {name: value for name, value in optional.items() if value is not None}
    return Step(
        "advance",
        (
            keys.record(dispatch.dispatch_id),
            keys.attempts(dispatch.dispatch_id),
            keys.timeline(dispatch.dispatch_id),
            keys.DUE,
            keys.live(dispatch.client_id, dispatch.agent_name, dispatch.room_name),
            keys.dispatch_metrics(dispatch.client_id),
            keys.LEASES,
            keys.WAITING,
            keys.open_sessions(dispatch.client_id),
            keys.inflight(dispatch.client_id, dispatch.agent_name, dispatch.deployment),
            keys.window(dispatch.client_id, dispatch.agent_name, dispatch.deployment),
            keys.AGENT_SERVERS,
            keys.NOTIFIED,
            keys.outbox(dispatch.client_id),
            agent_counts.key,
            keys.AGENT_METRICS_INDEX,
            keys.failed_sessions(dispatch.client_id),
            wake.queue if wake else keys.DISPATCH_QUEUE,
            keys.rate(dispatch.client_id, admission.limits.bucket if admission else ""),
            keys.clearing_pace(dispatch.client_id) if clears else keys.pace(dispatch.client_id),
            keys.BUSY,
        ),
        (json.dumps(order),),
        lambda reply: _advanced(reply, admission),
        lambda done: _tell(dispatch, order["events"], detail or {}, done),
    )


def _ms(time_s: float | None) -> int | None:
    return None if time_s is None else int(time_s * 1000)


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


def _tell(
    dispatch: DispatchRef, events: Sequence[str], detail: Mapping[str, str], done: Advanced
) -> None:
    """Say what a step has done: each event of the timeline once, from state to state."""
    if not done.applied:
        return
    is_at = done.state_before
    for event in events:
        # What goes before the transition's own event is the name of the state on the way.
        to = done.state if event == events[-1] or not done.moved else event
        change = Change(
            event=event,
            generation=done.generation,
            from_state=is_at,
            to_state=to,
            detail=detail,
        )
        transitions.tell(dispatch, change)
        is_at = to


def read(dispatch_id: str) -> Step[Dispatch | None]:
    """The whole record in one consistent look; None when there is none.

    What cannot be an id has none: it comes from URLs, command lines and other people's messages,
    and `<id>:attempts` is another key of ours. Running it raises `UnreadableRecord`.
    """
    known = dispatch_id if keys.is_dispatch_id(dispatch_id) else ""
    return Step(
        "read",
        (keys.record(known), keys.attempts(known), keys.timeline(known)),
        (),
        lambda reply: parse_dispatch(dispatch_id, *reply),
    )


def claim_due(*, limit: int, push_s: float) -> Step[list[str]]:
    """Take up to `limit` dispatch ids whose time has come, the clients in turn, and push it on.

    While the dispatch queue is as long as that, those that wait in it and have time left are left
    to their own messages.
    """
    return Step(
        "claim_due",
        (keys.DUE, keys.DISPATCH_QUEUE),
        (str(limit), str(int(push_s * 1000)), keys.RECORD_PREFIX, str(limit)),
        list,
    )


def defer(dispatch_id: str, *, due_in_s: float) -> Step[int]:
    """Have a record that is on the due list looked at again in `due_in_s`."""
    return Step("defer", (keys.DUE,), (dispatch_id, str(int(due_in_s * 1000))), int)
