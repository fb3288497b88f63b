"""Counted figures, and the health of the ledger.

`figures` reads what the other steps have counted, `health` the work that is left; each in one
consistent read. With a thousand containers the read of a day would hold Redis for 130 ms, so `read`
takes many steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from dispatcher.domain.metrics import OPEN_STATES, Figures, Window, agent_figures, client_figures
from dispatcher.domain.models import AgentServerReport
from dispatcher.ledger import keys, reports
from dispatcher.ledger.parsing import numbers, pairs
from dispatcher.ledger.step import Step

if TYPE_CHECKING:
    from dispatcher.ledger.async_client import AsyncLedger
    from dispatcher.ledger.client import Ledger

QUEUES: Final = (keys.DISPATCH_QUEUE, keys.VERIFY_QUEUE, keys.SWEEP_QUEUE, keys.WEBHOOK_QUEUE)
NOT_OURS: Final = ""  # the client of jobs that another dispatcher has made
EVERY: Final = "*"  # every client for which an agent server has counted anything
# Hashes that one step adds up; the window of a day has a hundred for each client and container.
_HASHES: Final = 2000


@dataclass(frozen=True, kw_only=True)
class Health:
    """Health at one moment of Redis's clock. Ages are in ms; None: never."""

    at_ms: int
    agent_servers: tuple[AgentServerReport, ...] = ()
    queues: Mapping[str, int] = field(default_factory=dict)  # messages that wait, by queue
    waiting: int = 0  # dispatches that wait for an agent server
    oldest_waiting_ms: int = 0  # since the request of the oldest of them
    overdue: int = 0  # records that are due and that no sweep has taken yet
    oldest_overdue_ms: int = 0
    sweeper_silent_ms: int | None = None  # since the last sweep
    workers: frozenset[str] = frozenset()  # queues that a worker serves
    livekit: frozenset[str] = frozenset()  # clients whose LiveKit server answers
    sweeper_alive: bool = False
    parked: int = 0
    data_losses: int = 0
    internal_errors: Mapping[str, int] = field(default_factory=dict)  # unexpected ones, by work


def figures(window: Window, client_ids: Iterable[str]) -> Step[Figures]:
    """Return what was counted for these clients, in one step; for many containers use `read`.

    `NOT_OURS` and `EVERY` may be among them; those have agents' figures only.
    """
    wanted = tuple(dict.fromkeys(client_ids))
    return _look(window, wanted, "found", of=wanted)


def read(store: Ledger, window: Window, client_ids: Iterable[str]) -> Figures:
    """Return `figures`, read in steps that hold Redis for some milliseconds each.

    Raises:
        LedgerUnavailable: Redis does not answer.
    """
    wanted = tuple(dict.fromkeys(client_ids))
    named = store.run(_look(window, (), "named", of=wanted))
    return _joined(named, [store.run(piece) for piece in _pieces(named, wanted)])


async def read_async(store: AsyncLedger, window: Window, client_ids: Iterable[str]) -> Figures:
    """As `read`, with asyncio."""
    wanted = tuple(dict.fromkeys(client_ids))
    named = await store.run(_look(window, (), "named", of=wanted))
    return _joined(named, [await store.run(piece) for piece in _pieces(named, wanted)])


def _pieces(named: Figures, client_ids: Sequence[str]) -> Iterator[Step[Figures]]:
    """Yield the steps that read the counters of the clients and of the `named` agents."""
    window, at_ms = named.window, named.at_ms
    most = max(1, _HASHES // window.hashes)
    for at in range(0, len(client_ids), most):
        yield _look(window, client_ids[at : at + most], "counted", at_ms=at_ms)
    of_agents = [
        keys.agent_metrics(each.client_id, each.container, each.agent_name) for each in named.agents
    ]
    for at in range(0, len(of_agents), most):
        yield _look(window, (), "counted", at_ms=at_ms, agents=of_agents[at : at + most])


def _joined(named: Figures, pieces: Sequence[Figures]) -> Figures:
    return replace(
        named,
        clients=tuple(client for piece in pieces for client in piece.clients),
        agents=tuple(agent for piece in pieces for agent in piece.agents),
    )


def _look(
    window: Window,
    client_ids: Sequence[str],
    which: str,
    *,
    of: Sequence[str] = (),
    at_ms: int = 0,
    agents: Sequence[str] = (),
) -> Step[Figures]:
    """Return one step of `lua/figures.lua`."""
    of_clients = ((keys.dispatch_metrics(each), keys.open_sessions(each)) for each in client_ids)
    return Step(
        "figures",
        (keys.AGENT_METRICS_INDEX, *(key for pair in of_clients for key in pair), *agents),
        (window.minutes, window.bucket_ms, len(OPEN_STATES), at_ms, len(client_ids), which, *of),
        lambda reply: _figures(window, client_ids, reply),
    )


def _figures(window: Window, client_ids: Sequence[str], reply: Sequence[Any]) -> Figures:
    at_ms, since_ms, clients, agents = reply
    return Figures(
        at_ms=at_ms,
        window=window,
        since_ms=since_ms,
        clients=tuple(
            client_figures(client_id, numbers(flat), dict(zip(OPEN_STATES, in_states, strict=True)))
            for client_id, (flat, in_states) in zip(client_ids, clients, strict=True)
            if client_id not in (NOT_OURS, EVERY)
        ),
        agents=tuple(
            agent_figures(*keys.names_of_agent_metrics(key), numbers(flat))
            for key, flat in sorted(zip(agents[::2], agents[1::2], strict=True))
        ),
    )


def health() -> Step[Health]:
    """Return the health of the ledger."""
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
    counted = pairs(flat)
    by_name = attrgetter("agent_name", "container", "agent_server_id")
    at_work = [reports.part(text) for text in alive]

    def age_ms(since: str) -> int:
        return max(0, now - int(float(since))) if since else 0

    def named(prefix: str) -> frozenset[str]:
        return frozenset(part.removeprefix(prefix) for part in at_work if part.startswith(prefix))

    return Health(
        at_ms=now,
        agent_servers=tuple(sorted(filter(None, map(reports.agent_server, servers)), key=by_name)),
        queues=dict(zip(QUEUES, queues, strict=True)),
        waiting=waiting,
        oldest_waiting_ms=age_ms(oldest),
        overdue=overdue,
        oldest_overdue_ms=age_ms(first_due),
        sweeper_silent_ms=age_ms(swept) if swept else None,
        workers=named(reports.worker_part("")),
        livekit=named(reports.livekit_part("")),
        sweeper_alive=reports.SWEEPER in at_work,
        parked=parked,
        data_losses=int(counted.get("data_losses", 0)),
        internal_errors={
            name.removeprefix(reports.INTERNAL_ERRORS): int(value)
            for name, value in sorted(counted.items())
            if name.startswith(reports.INTERNAL_ERRORS)
        },
    )
