"""What has been counted, and how does everything stand?

`figures` reads what the other steps have counted, `health` what they have left to do; both in one
consistent look.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from dispatcher import heartbeat, keys, reports
from dispatcher.ledger import Step
from dispatcher.metrics import (
    OPEN_STATES,
    Figures,
    Window,
    agent_figures,
    client_figures,
)
from dispatcher.models import AgentServerReport

# Celery's queues; `sweep` and `verify` belong to the routes of celeryconfig.py.
QUEUES: Final = (keys.DISPATCH_QUEUE, "verify", "sweep", keys.WEBHOOK_QUEUE)
NOT_OURS: Final = ""  # the client of jobs that are not our dispatcher's
_INTERNAL: Final = "internal_errors:"
EVERY: Final = "*"  # every client of whom an agent server has counted anything


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
    internal_errors: Mapping[str, int] = field(default_factory=dict)  # unexpected ones, by work


def figures(window: Window, client_ids: Iterable[str]) -> Step[Figures]:
    """What was counted for these clients.

    `NOT_OURS` and `EVERY` may be among them; those have agents' figures only.
    """
    wanted = tuple(dict.fromkeys(client_ids))
    of_clients = ((keys.dispatch_metrics(each), keys.open_sessions(each)) for each in wanted)
    return Step(
        "figures",
        (keys.AGENT_METRICS_INDEX, *(key for pair in of_clients for key in pair)),
        (str(window.minutes), str(window.bucket_ms), str(len(OPEN_STATES)), *wanted),
        lambda reply: _figures(window, wanted, reply),
    )


def _counters(flat: Sequence[str]) -> dict[str, int]:
    return {name: int(value) for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _figures(window: Window, client_ids: Sequence[str], reply: Sequence[Any]) -> Figures:
    at_ms, since_ms, clients, agents = reply
    return Figures(
        at_ms=at_ms,
        window=window,
        since_ms=since_ms,
        clients=tuple(
            client_figures(
                client_id, _counters(flat), dict(zip(OPEN_STATES, in_states, strict=True))
            )
            for client_id, (flat, in_states) in zip(client_ids, clients, strict=True)
            if client_id not in (NOT_OURS, EVERY)
        ),
        agents=tuple(
            agent_figures(*keys.names_of_agent_metrics(key), _counters(flat))
            for key, flat in sorted(zip(agents[::2], agents[1::2], strict=True))
        ),
    )


def health() -> Step[Health]:
    """How everything stands."""
    return Step(
        "health",
        (
            *(keys.AGENT_SERVERS, keys.ALIVE, keys.WAITING, keys.DUE, keys.LEASES_LOOKED_AT),
            *(keys.PARKED, keys.LEDGER_METRICS),
            *QUEUES,
        ),
        (),
        _health,
    )


def _health(reply: Sequence[Any]) -> Health:
    now, servers, alive, waiting, oldest, overdue, first_due, swept, parked, flat, queues = reply
    counted = dict(zip(flat[::2], flat[1::2], strict=True))
    parts = [reports.part(text) for text in alive]

    def age_ms(since: str) -> int:
        return max(0, now - int(float(since))) if since else 0

    def named(prefix: str) -> frozenset[str]:
        return frozenset(part.removeprefix(prefix) for part in parts if part.startswith(prefix))

    return Health(
        at_ms=now,
        agent_servers=tuple(
            sorted(
                filter(None, map(reports.agent_server, servers)),
                key=lambda each: (each.agent_name, each.container, each.agent_server_id),
            )
        ),
        queues=dict(zip(QUEUES, queues, strict=True)),
        waiting=waiting,
        oldest_waiting_ms=age_ms(oldest),
        overdue=overdue,
        oldest_overdue_ms=age_ms(first_due),
        sweeper_silent_ms=age_ms(swept) if swept else None,
        workers=named(heartbeat.worker("")),
        livekit=named(heartbeat.livekit("")),
        sweeper_alive=heartbeat.SWEEPER in parts,
        parked=parked,
        data_losses=int(counted.get("data_losses", 0)),
        internal_errors={
            name.removeprefix(_INTERNAL): int(value)
            for name, value in sorted(counted.items())
            if name.startswith(_INTERNAL)
        },
    )
