"""A Prometheus collector of the ledger's figures: clients, agent servers, queues, records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from dispatcher.domain.failure_reasons import FULL
from dispatcher.domain.metrics import BOUNDS, TIMES, AgentFigures, ClientFigures, Figures, Histogram
from dispatcher.domain.models import FailureReason
from dispatcher.explain.texts import REJECTED
from dispatcher.ledger import parts
from dispatcher.ledger.guarding import Work
from dispatcher.ledger.statistics import QUEUES, Health

_COUNTERS: Final = {
    "dispatches": ("dispatches", "Sessions asked for."),
    "joins": ("joined", "Agents that came into their session, by LiveKit's own word."),
    "sessions_joined": ("sessions_joined", "Sessions that got an agent, each once."),
    "sessions_failed": ("sessions_failed", "Sessions that failed and never had an agent."),
    "sessions_lost": ("sessions_lost", "Sessions that had an agent, lost it and then failed."),
    "ended": ("ended", "Sessions that had their agent and are over."),
    "cancelled": ("cancelled", "Sessions cancelled by their client, or because nobody came."),
    "redispatches": ("redispatches", "Sessions sent again by hand."),
    "attempts": ("attempts", "Requests to LiveKit for an agent."),
    "agents_lost": (
        "agents_lost",
        "Agents that were lost while a person was in the room or about to come.",
    ),
    "idle_agents_lost": ("idle_agents_lost", "Agents that were lost before any person had come."),
    "agents_crashed": (
        "agents_crashed",
        "Agents whose program raised or died before they were in the room.",
    ),
    "surplus_agents": ("surplus_agents", "Agents put out because the room had one already."),
    "foreign_agents": (
        "foreign_agents",
        "Agents of the same name, sent by another backend, that were put out.",
    ),
    "webhooks_delivered": ("webhooks_delivered", "Events delivered to the client's own server."),
    "webhook_failures": ("webhook_failures", "Deliveries that failed; most are repeated."),
    "webhooks_dead": ("webhooks_dead", "Events given up."),
}
_TIMES: Final = {
    "time_to_join": "From the request to the agent in the room.",
    "queue_wait": "From queued to a dispatch worker.",
    "dispatch": "LiveKit's answer to the request for an agent, with all tries.",
    "offer": "From that answer to LiveKit's offer to an agent server.",
    "accept": "From the offer to the accept.",
    "join": "From the accept to the agent in the room.",
}
_PER_SESSION: Final = {
    "generations": "Attempts per session, at its first join or its end.",
    "tries": "Requests to LiveKit for an agent per session, at its first join or its end.",
}
# Prometheus sees no growth in a counter that appears with the first failure, so each reason is
# there from the beginning. A session with one of these was cancelled, and counts elsewhere.
_CANCELLED: Final = frozenset(
    {FailureReason.NOBODY_CAME, FailureReason.SUPERSEDED, FailureReason.CANCELLED_BY_CLIENT}
)
_NONE_FAILED: Final = dict.fromkeys(
    (
        *(str(reason) for reason in FailureReason if reason not in _CANCELLED),
        *(f"{FailureReason.REJECTED}: {why}" for why in REJECTED if why != FULL),
    ),
    0,
)
_NO_ERRORS: Final = dict.fromkeys(map(str, Work), 0)
_OF_AGENTS: Final = ("client", "container", "agent")


class LedgerCollector(Collector):
    """The figures of one read of the ledger; None where Redis did not answer."""

    def __init__(self, figures: Figures | None = None, health: Health | None = None) -> None:
        self._figures = figures
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; called by prometheus_client."""
        up = self._figures is not None and self._health is not None
        yield GaugeMetricFamily(
            "usher_up", "1 if Redis has answered this scrape and takes writes.", value=float(up)
        )
        if self._figures is not None:
            yield from _of_clients(self._figures.clients)
            yield from _of_agents(self._figures.agents)
        if self._health is not None:
            yield from _of_servers(self._health)
            yield from _of_workers(self._health)
            yield from _of_records(self._health)
            yield _of_errors(self._health)
        if self._figures is not None and self._health is not None:
            yield _of_livekit(self._figures.clients, self._health)


def _of_clients(clients: Iterable[ClientFigures]) -> Iterator[Metric]:
    for name, (field, about) in _COUNTERS.items():
        counter = CounterMetricFamily(f"usher_{name}", about, labels=("client",))
        for client in clients:
            counter.add_metric((client.client_id,), getattr(client, field))
        yield counter
    failures = CounterMetricFamily(
        "usher_failures", "Sessions that ended without an agent.", labels=("client", "reason")
    )
    states = GaugeMetricFamily(
        "usher_sessions", "Sessions that have not ended, now.", labels=("client", "state")
    )
    for client in clients:
        for reason, count in (_NONE_FAILED | dict(client.failed)).items():
            failures.add_metric((client.client_id, reason), count)
        for state, number in client.states.items():
            states.add_metric((client.client_id, state), number)
    yield failures
    yield states
    for name in BOUNDS:
        yield _histogram(name, clients)


def _histogram(name: str, clients: Iterable[ClientFigures]) -> Metric:
    if name in TIMES:
        family = HistogramMetricFamily(f"usher_{name}_seconds", _TIMES[name], labels=("client",))
    else:
        family = HistogramMetricFamily(
            f"usher_session_{name}", _PER_SESSION[name], labels=("client",)
        )
    unit = 1000 if name in TIMES else 1
    for client in clients:
        found = client.histograms[name]
        family.add_metric((client.client_id,), _buckets(found, unit), found.sum / unit)
    return family


def _buckets(found: Histogram, unit: int) -> list[tuple[str, float]]:
    """Return upper bounds with the number of all values up to them, as Prometheus has it."""
    upper = [*(str(bound / unit) for bound in found.bounds), "+Inf"]
    buckets, below = [], 0
    for bound, count in zip(upper, found.counts, strict=True):
        below += count
        buckets.append((bound, float(below)))
    return buckets


def _of_agents(agents: Iterable[AgentFigures]) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "usher_agent_requests", "Jobs that agent servers have answered.", labels=_OF_AGENTS
    )
    accepts = CounterMetricFamily(
        "usher_agent_accepts", "Jobs accepted.", labels=(*_OF_AGENTS, "reason")
    )
    rejects = CounterMetricFamily(
        "usher_agent_rejects", "Jobs rejected.", labels=(*_OF_AGENTS, "reason")
    )
    others = {
        name: CounterMetricFamily(f"usher_agent_{name}", about, labels=_OF_AGENTS)
        for name, about in {
            "joins": "Agents that have connected to their room.",
            "leaves": "Agents that have left it and said so.",
            "adoptions": "Sessions taken over that the ledger did not know to be theirs.",
            "assignment_timeouts": "Accepted jobs that LiveKit gave to nobody.",
        }.items()
    }
    for agent in agents:
        labels = (agent.client_id, agent.container, agent.agent_name)
        requests.add_metric(labels, agent.requests)
        for reason, count in agent.accept_reasons.items():
            accepts.add_metric((*labels, reason), count)
        for reason, count in agent.reject_reasons.items():
            rejects.add_metric((*labels, reason), count)
        for name, family in others.items():
            family.add_metric(labels, getattr(agent, name))
    yield from (requests, accepts, rejects, *others.values())


def _of_servers(health: Health) -> Iterator[Metric]:
    labels = (*_OF_AGENTS, "server")
    slots = GaugeMetricFamily("usher_agent_server_slots", "Sessions it can take.", labels=labels)
    used = GaugeMetricFamily(
        "usher_agent_server_used_slots", "Sessions that it has.", labels=labels
    )
    load = GaugeMetricFamily("usher_agent_server_load", "Used slots / slots.", labels=labels)
    online = GaugeMetricFamily(
        "usher_agent_servers_online",
        "Agent servers registered at LiveKit and not on their way out.",
        labels=("client", "agent"),
    )
    count: dict[tuple[str, str], int] = {}
    for server in health.agent_servers:
        whose = (server.client_id, server.agent_name)
        values = (server.client_id, server.container, server.agent_name, server.agent_server_id)
        slots.add_metric(values, server.slots)
        used.add_metric(values, server.used_slots)
        load.add_metric(values, server.load)
        count[whose] = count.get(whose, 0) + server.online
    for whose, number in sorted(count.items()):
        online.add_metric(whose, number)
    yield from (slots, used, load, online)


def _of_workers(health: Health) -> Iterator[Metric]:
    queues = GaugeMetricFamily(
        "usher_queue_length", "Celery messages that wait.", labels=("queue",)
    )
    workers = GaugeMetricFamily(
        "usher_worker_up", "1 if a worker serves that queue; sweeper: beat.", labels=("worker",)
    )
    for queue in QUEUES:
        queues.add_metric((queue,), health.queues.get(queue, 0))
        workers.add_metric((queue,), float(queue in health.workers))
    workers.add_metric((parts.SWEEPER,), float(health.sweeper_alive))
    yield from (queues, workers)


def _of_records(health: Health) -> Iterator[Metric]:
    yield _gauge("waiting_dispatches", "Dispatches that wait for an agent server.", health.waiting)
    yield _gauge(
        "oldest_waiting_seconds",
        "Since the oldest of them was asked for.",
        health.oldest_waiting_ms / 1000,
    )
    yield _gauge(
        "overdue_dispatches",
        "Records whose time has come and that nobody has looked at.",
        health.overdue,
    )
    yield _gauge(
        "oldest_overdue_seconds",
        "For how long the oldest of them.",
        health.oldest_overdue_ms / 1000,
    )
    if health.sweeper_silent_ms is not None:
        yield _gauge(
            "sweeper_silent_seconds", "Since the last sweep.", health.sweeper_silent_ms / 1000
        )
    yield _gauge("parked_dispatches", "Records that nobody can read.", health.parked)
    yield CounterMetricFamily(
        "usher_data_losses", "How often Redis has lost what it held.", value=health.data_losses
    )


def _of_errors(health: Health) -> Metric:
    errors = CounterMetricFamily(
        "usher_internal_errors", "Failures that nothing has expected.", labels=("work",)
    )
    for work, count in (_NO_ERRORS | dict(health.internal_errors)).items():
        errors.add_metric((work,), count)
    return errors


def _of_livekit(clients: Iterable[ClientFigures], health: Health) -> Metric:
    answers = GaugeMetricFamily(
        "usher_livekit_up", "1 while that client's LiveKit server answers.", labels=("client",)
    )
    for client in clients:
        answers.add_metric((client.client_id,), float(client.client_id in health.livekit))
    return answers


def _gauge(name: str, about: str, value: float) -> Metric:
    return GaugeMetricFamily(f"usher_{name}", about, value=value)
