"""The Lua scripts that steps run in Redis, each assembled from its file and the files it uses."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from hashlib import sha1
from importlib import resources
from typing import Final

from dispatcher.domain.metrics import BOUNDS, OPEN_STATES
from dispatcher.domain.models import END_MARGIN_S
from dispatcher.ledger import keys
from dispatcher.ledger.admission import WINDOW_S

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
    ),
    "create": ("counting", "limits", "celery_message"),
    "lapse": ("celery_message",),
    "count_request": ("limits",),
    "on_their_way": ("window",),
    "claim_due": ("push", "in_turn"),
    "pick_waiting": ("push", "in_turn"),
    "restore": ("announce", "counting", "observing"),
    "list": ("pages",),
    "search": ("pages",),
    "read": ("fresh_reports",),
    "fresh": ("fresh_reports",),
    **dict.fromkeys(("count", "event_sent", "event_later", "event_dead"), ("counting",)),
}


@cache
def script(name: str) -> str:
    """Return the source of `lua/<name>.lua`, after the other files that it uses."""
    parts = _PARTS.get(name, ())
    places = _places() if "counting" in parts else ""
    bounds = _bounds() if "observing" in parts else ""
    source = places + bounds + "".join(_source(part) for part in (*parts, name))
    asks_the_clock = "clock()" in source
    return (_lua_constants() + _source("clock") if asks_the_clock else "") + source


def _source(name: str) -> str:
    return (resources.files("dispatcher.ledger") / "lua" / f"{name}.lua").read_text("utf-8")


def _lua_constants() -> str:
    """Return the constants for scripts that call the clock."""
    return (
        f"local CLOCK, MESSAGES = '{keys.CLOCK}', '{keys.MESSAGES}'\n"
        f"local END_MARGIN_MS, WINDOW_MS = {END_MARGIN_S * 1000:.0f}, {WINDOW_S * 1000:.0f}\n"
    )


def _bounds() -> str:
    """Return the bounds of the metrics' histograms."""
    bounds = ", ".join(
        f"{name} = {{{', '.join(map(str, values))}}}" for name, values in BOUNDS.items()
    )
    return f"local BOUNDS = {{{bounds}}}\n"


def _places() -> str:
    """Return the score of each open state."""
    places = ", ".join(f"{state} = {place}" for place, state in enumerate(OPEN_STATES, 1))
    return f"local PLACES = {{{places}}}\n"


@cache
def sha(script_name: str) -> str:
    """Return the name by which EVALSHA knows a script."""
    # EVALSHA's name of a script, not a safeguard: Redis itself prescribes SHA-1.
    return sha1(script(script_name).encode(), usedforsecurity=False).hexdigest()
