"""What has been counted, and how does everything stand?

`figures` reads what the other steps have counted, `health` what they have left to do; both in one
consistent look.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from dispatcher import heartbeat, keys
from dispatcher.ledger import Step
from dispatcher.metrics import (
    OPEN_STATES,
    AgentFigures,
    ClientFigures,
    Figures,
    Window,
    agent_figures,
    client_figures,
)
from dispatcher.models import AgentServerReport, State

# Celery's queues; `sweep` and `verify` belong to the routes of celeryconfig.py.
QUEUES: Final = (keys.DISPATCH_QUEUE, "verify", "sweep", keys.WEBHOOK_QUEUE)
NOT_OURS: Final = ""  # the client of jobs that are not our dispatcher's


@dataclass(frozen=True, kw_only=True)
class Health:
    """How everything stands, as of one moment of Redis's clock. Ages are in ms; None: never."""

    at_ms: int
    agent_servers: tuple[AgentServerReport, ...] = ()
    queues: Mapping[str, int] = field(default_factory=dict)  # messages that wait, by queue
    waiting: int = 0  # dispatches that wait for an agent server
    oldest_waiting_ms: int = 0  # for how long the oldest of them has been asked for
    overdue: int = 0  # records whose time has come and that no sweep has taken yet
    oldest_overdue_ms: int = 0
    sweeper_silent_ms: int | None = None  # since the last sweep
    workers: frozenset[str] = frozenset()  # queues that a worker serves
    livekit: frozenset[str] = frozenset()  # clients whose LiveKit server answers
    sweeper_alive: bool = False
    parked: int = 0
    data_losses: int = 0


def figures(window: Window, client_ids: Iterable[str]) -> Step[Figures]:
    """What was counted for these clients; with `NOT_OURS` among them for foreign jobs too."""
    wanted = tuple(dict.fromkeys(client_ids))
    return Step("figures", (), (window.value, *wanted), lambda reply: _figures(window, reply))


def _figures(window: Window, reply: Any) -> Figures:
    raise NotImplementedError


def health() -> Step[Health]:
    """How everything stands."""
    return Step("health", (), (), _health)


def _health(reply: Any) -> Health:
    raise NotImplementedError
