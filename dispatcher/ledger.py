"""What is the truth about a dispatch, and how is it changed?

The only module that knows Redis keys. Every operation is a `Step`: one Lua script, so one atomic
round trip, described without doing it; `store.py` carries steps out, blocking or with asyncio.

| key | type | what |
| --- | --- | --- |
| `usher:dispatch:<id>` | hash | the record: state, generation, times, names |
| `usher:dispatch:<id>:attempts` | hash | `<generation>.<field>` of every attempt |
| `usher:dispatch:<id>:timeline` | list | JSON events, oldest first, at most 200 |
| `usher:due` | sorted set | dispatch id by the time (ms) at which somebody must look at it |
| `usher:live:<client>:<agent>:<room>` | string | the live dispatch of that room |
| `usher:agent_servers` | hash | the last report of every agent server, with its expiry |
| `usher:alive` | hash | parts that are at work (workers, sweeper, LiveKit), with their expiry |
| `usher:metrics:dispatch:<client>` | hash | counters of the dispatcher |
| `usher:metrics:agent:<client>:<container>:<agent>` | hash | counters of the agent servers |
| `usher:wake:<id>` | channel | the event's name, after every change of the record |
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

from dispatcher.models import (
    END_MARGIN_S,
    TERMINAL,
    AgentServerReport,
    Dispatch,
    DispatchRef,
    NewDispatch,
    State,
    Transition,
)
from dispatcher.records import parse_dispatch

T = TypeVar("T")

DUE_KEY: Final = "usher:due"
AGENT_SERVERS_KEY: Final = "usher:agent_servers"
ALIVE_KEY: Final = "usher:alive"
TIME_TO_JOIN_BUCKETS_MS: Final = (250, 500, 1000, 2000, 3000, 5000, 10_000, 20_000)


def _record_key(dispatch_id: str) -> str:
    return f"usher:dispatch:{dispatch_id}"


def _attempts_key(dispatch_id: str) -> str:
    return f"usher:dispatch:{dispatch_id}:attempts"


def _timeline_key(dispatch_id: str) -> str:
    return f"usher:dispatch:{dispatch_id}:timeline"


def _live_key(client_id: str, agent_name: str, room_name: str) -> str:
    return f"usher:live:{client_id}:{quote(agent_name, safe='')}:{quote(room_name, safe='')}"


def dispatch_metrics_key(client_id: str) -> str:
    """Hash of the dispatcher's counters for one client."""
    return f"usher:metrics:dispatch:{client_id}"


def agent_metrics_key(client_id: str, container: str, agent_name: str) -> str:
    """Hash of the agent servers' counters for one client, container and agent name."""
    return (
        ":".join(
            ("usher:metrics:agent", *(quote(part, safe="") for part in (client_id, container))),
        )
        + ":"
        + quote(agent_name, safe="")
    )


def wake_channel(dispatch_id: str) -> str:
    """Pub/sub channel that gets the event's name after every change of the record."""
    return f"usher:wake:{dispatch_id}"


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


def create(new: NewDispatch, *, due_in_s: float, detail: Mapping[str, str]) -> Step[Created]:
    """Write the record of a new dispatch; a live one for client, room and agent wins over it."""
    fields = {
        key: value
        for key, value in asdict(new).items()
        if key not in ("dispatch_id", "deadline_ms") and value != ""
    }
    return Step(
        "create",
        (
            _record_key(new.dispatch_id),
            _timeline_key(new.dispatch_id),
            DUE_KEY,
            _live_key(new.client_id, new.agent_name, new.room_name),
            dispatch_metrics_key(new.client_id),
        ),
        (
            _record_key(""),
            new.dispatch_id,
            str(new.deadline_ms),
            str(int(due_in_s * 1000)),
            json.dumps(dict(detail)),
            *(text for pair in fields.items() for text in pair),
        ),
        lambda reply: Created(
            dispatch_id=reply[1], state=State(reply[2]), new=reply[0] == "created"
        ),
    )


def advance(
    dispatch: DispatchRef,
    transition: Transition,
    *,
    any_generation: bool = False,
    due_in_s: float | None = None,
    fields: Mapping[str, str] | None = None,
    attempt: Mapping[str, str] | None = None,
    detail: Mapping[str, str] | None = None,
    before: str = "",
    metrics: Mapping[str, int] | None = None,
    metrics_key: str = "",
    deadline_in_s: float | None = None,
    retention_s: int = 0,
) -> Step[Advanced]:
    """Carry out `transition` if the record is still in `dispatch`'s generation.

    Args:
        any_generation: do not compare the generation (for a redispatch by hand).
        due_in_s: when somebody must look again, at the latest just before the deadline; None takes
            the record off the due list.
        attempt: fields of this generation's attempt.
        before: an event to put into the timeline before the transition's own.
        retention_s: how long a record that ends here is kept; 0 is for ever.
        deadline_in_s: start the clock anew (for a redispatch by hand).
    """
    order: dict[str, Any] = {
        "id": dispatch.dispatch_id,
        "moves": dict.fromkeys(transition.moves, True),
        "notes": dict.fromkeys(transition.notes, True),
        "to": transition.to,
        "fields": dict(fields or {}),
        "attempt": dict(attempt or {}),
        "attempt_generation": dispatch.generation,
        "events": [before, transition.event] if before else [transition.event],
        "detail": json.dumps(dict(detail or {})),
        "metrics": dict(metrics or {}),
        "channel": wake_channel(dispatch.dispatch_id),
        "new_generation": transition.new_generation,
        "revive": deadline_in_s is not None,
        "terminal": transition.to in TERMINAL,
        "retention_s": retention_s,
    }
    if not any_generation:
        order["generation"] = dispatch.generation
    if due_in_s is not None:
        order["due_in_ms"] = int(due_in_s * 1000)
        order["end_margin_ms"] = int(END_MARGIN_S * 1000)
    if deadline_in_s is not None:
        order["deadline_in_ms"] = int(deadline_in_s * 1000)
    return Step(
        "advance",
        (
            _record_key(dispatch.dispatch_id),
            _attempts_key(dispatch.dispatch_id),
            _timeline_key(dispatch.dispatch_id),
            DUE_KEY,
            _live_key(dispatch.client_id, dispatch.agent_name, dispatch.room_name),
            metrics_key or dispatch_metrics_key(dispatch.client_id),
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
        (_record_key(dispatch_id), _attempts_key(dispatch_id), _timeline_key(dispatch_id)),
        (),
        lambda reply: parse_dispatch(dispatch_id, *reply),
    )


def claim_due(*, limit: int, push_s: float) -> Step[list[str]]:
    """Take up to `limit` dispatch ids whose time has come, oldest first, and push it on."""
    return Step("claim_due", (DUE_KEY,), (str(limit), str(int(push_s * 1000))), list)


def defer(dispatch_id: str, *, due_in_s: float) -> Step[int]:
    """Have a record that is on the due list looked at again in `due_in_s`."""
    return Step("defer", (DUE_KEY,), (dispatch_id, str(int(due_in_s * 1000))), int)


def report_agent_server(report: AgentServerReport, *, ttl_s: float) -> Step[int]:
    """Keep an agent server's report for `ttl_s`; 0 takes it away at once."""
    return Step(
        "report",
        (AGENT_SERVERS_KEY,),
        (report.agent_server_id, json.dumps(asdict(report)), str(int(ttl_s * 1000))),
        int,
    )


def agent_servers() -> Step[list[AgentServerReport]]:
    """Every agent server that has reported itself lately."""
    return Step(
        "fresh",
        (AGENT_SERVERS_KEY,),
        (),
        lambda reply: [AgentServerReport(**json.loads(text)) for text in reply],
    )


def report_alive(name: str, *, ttl_s: float) -> Step[int]:
    """Note that the part `name` is at work; it counts as gone after `ttl_s`."""
    return Step("report", (ALIVE_KEY,), (name, json.dumps(name), str(int(ttl_s * 1000))), int)


def alive() -> Step[frozenset[str]]:
    """The names of the parts that are at work."""
    return Step(
        "fresh", (ALIVE_KEY,), (), lambda reply: frozenset(json.loads(text) for text in reply)
    )


def count(metrics_key: str, increments: Mapping[str, int]) -> Step[int]:
    """Add to counters."""
    args = tuple(str(part) for pair in increments.items() for part in pair)
    return Step("count", (metrics_key,), args, int)


def ping() -> Step[int]:
    """Redis's clock in ms since the epoch."""
    return Step("ping", (), (), int)
