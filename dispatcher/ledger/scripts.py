"""The Lua scripts that steps run in Redis, each assembled from its file and the files it uses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from hashlib import sha1
from importlib import resources
from typing import Any, Final

from dispatcher.domain.metrics import BOUNDS, OPEN_STATES
from dispatcher.domain.models import END_MARGIN_S, TERMINAL
from dispatcher.domain.quotas import AT_ONCE, PACE_MS
from dispatcher.domain.timing import GRACE_S, STILL_TO_COME_S
from dispatcher.ledger import keys
from dispatcher.ledger.admission import LEAST_WINDOW, WINDOW_S
from dispatcher.ledger.dispatches import IDEMPOTENCY_S
from dispatcher.ledger.leases import GAP_S, LEASE_S, LOOKED_AT_S
from dispatcher.ledger.outbox import EVENT_RETENTION_S
from dispatcher.ledger.step import ms

# The files that are part of a script, in this order; `clock` is added where a script calls it.
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "advance": (
        "announce",
        "counting",
        "observing",
        "stages",
        "window",
        "limits",
        "bounds",
        "celery_message",
        "placing",
    ),
    "create": ("counting", "limits", "celery_message"),
    "lapse": ("celery_message",),
    "count_request": ("limits",),
    "on_their_way": ("window",),
    "claim_due": ("push", "in_turn"),
    "pick_waiting": ("push", "in_turn"),
    "restore": ("announce", "counting", "observing"),
    **dict.fromkeys(("read", "fresh", "health"), ("fresh_reports",)),
    **dict.fromkeys(("count", "event_sent", "event_later", "event_dead"), ("counting",)),
}

# What the scripts share with this package; each stands before the scripts that name it.
_CONSTANTS: Final[Mapping[str, Any]] = {
    "CLOCK": keys.CLOCK,
    "MESSAGES": keys.MESSAGES,
    "RECORD_PREFIX": keys.RECORD_PREFIX,
    "LIVE_PREFIX": keys.LIVE_PREFIX,
    "SESSIONS_PREFIX": keys.SESSIONS_PREFIX,
    "WAKE_PREFIX": keys.WAKE_PREFIX,
    "EVENT_PREFIX": keys.EVENT_PREFIX,
    "JOBS_PREFIX": keys.JOBS_PREFIX,
    "CAPACITY_CHANNEL": keys.CAPACITY_CHANNEL,
    "EVENT_RETENTION_S": EVENT_RETENTION_S,
    "IDEMPOTENCY_S": IDEMPOTENCY_S,
    "END_MARGIN_MS": ms(END_MARGIN_S),
    "STILL_TO_COME_MS": ms(STILL_TO_COME_S),
    "LEASE_MS": ms(LEASE_S),
    "LOOKED_AT_MS": ms(LOOKED_AT_S),
    "GAP_MS": ms(GAP_S),
    "GRACE_MS": ms(GRACE_S),
    "WINDOW_MS": ms(WINDOW_S),
    "LEAST_WINDOW": LEAST_WINDOW,
    "PACE_MS": PACE_MS,
    "PACED_AT_ONCE": AT_ONCE,
    "TERMINAL": dict.fromkeys(sorted(TERMINAL), True),
    "PLACES": {state: place for place, state in enumerate(OPEN_STATES, 1)},  # their scores
    "BOUNDS": BOUNDS,  # of the metrics' histograms
}


@cache
def script(name: str) -> str:
    """Return the source of `lua/<name>.lua`, after the other files and constants that it uses."""
    source = "".join(map(_source, (*_PARTS.get(name, ()), name)))
    if "clock()" in source:
        source = _source("clock") + source
    used = (
        f"local {constant} = {_in_lua(value)}\n"
        for constant, value in _CONSTANTS.items()
        if constant in source
    )
    return "".join(used) + source


def _source(name: str) -> str:
    return (resources.files("dispatcher.ledger") / "lua" / f"{name}.lua").read_text("utf-8")


def _in_lua(value: Any) -> str:
    """Return a constant as Lua writes it."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{name} = {_in_lua(each)}" for name, each in value.items()) + "}"
    if isinstance(value, tuple):
        return "{" + ", ".join(map(_in_lua, value)) + "}"
    return json.dumps(value)


@cache
def sha(script_name: str) -> str:
    """Return the name by which EVALSHA knows a script."""
    # EVALSHA's name of a script, not a safeguard: Redis itself prescribes SHA-1.
    return sha1(script(script_name).encode(), usedforsecurity=False).hexdigest()
