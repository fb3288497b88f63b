"""A Prometheus collector of the ledger's figures: clients, agent servers, queues, records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from dispatcher.domain.failure_reasons import FULL
from dispatcher.domain.metrics import AgentFigures, ClientFigures, Figures
from dispatcher.domain.models import AgentServerReport, FailureReason
from dispatcher.explain.texts import REJECTED
from dispatcher.ledger import reports
from dispatcher.ledger.guarding import Work
from dispatcher.ledger.statistics import QUEUES, Health

# By the field of `ClientFigures`.
_COUNTERS: Final = {
    "dispatches": "Sessions asked for.",
    "joined": "Agents that came into their session, by LiveKit's own word.",
    "sessions_joined": "Sessions that got an agent, each once.",
    "sessions_failed": "Sessions that failed and never had an agent.",
    "sessions_lost": "Sessions that had an agent, lost it and then failed.",
    "ended": "Sessions that had their agent and are over.",
    "cancelled": "Sessions cancelled by their client, or because nobody came.",
    "redispatches": "Sessions sent again by hand.",
    "attempts": "Requests to LiveKit for an agent.",
    "agents_lost": "Agents that were lost while a person was in the room or about to come.",
    "idle_agents_lost": "Agents that were lost before any person had come.",
    "agents_crashed": "Agents whose program raised or died before they were in the room.",
    "surplus_agents": "Agents put out because the room had one already.",
    "foreign_agents": "Agents of the same name, sent by another backend, that were put out.",
    "webhooks_delivered": "Events delivered to the client's own server.",
    "webhook_failures": "Deliveries that failed; most are repeated.",
    "webhooks_dead": "Events given up.",
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
_AGENT_COUNTERS: Final = {
    "requests": "Jobs that agent servers have answered.",
    "joins": "Agents that have connected to their room.",
    "leaves": "Agents that have left it and said so.",
    "adoptions": "Sessions taken over that the ledger did not know to be theirs.",
    "assignment_timeouts": "Accepted jobs that LiveKit gave to nobody.",
}
_SERVER_GAUGES: Final = {
    "slots": "Sessions it can take.",
    "used_slots": "Sessions that it has.",
    "load": "Used slots / slots.",
}


class LedgerCollector(Collector):
    """The figures of one read of the ledger; None where Redis did not answer."""

    def __init__(self, figures: Figures | None = None, health: Health | None = None) -> None:
        self._figures = figures
        self._health = health

    def collect(self) -> Iterator[Metric]:
        """Yield every metric; called by prometheus_client."""
        figures, health = self._figures, self._health
        up = figures is not None and health is not None
        yield _gauge("up", "1 if Redis has answered this scrape and takes writes.", up)
        if figures is None or health is None:
            return
        yield from _of_clients(figures.clients)
        yield from _of_agents(figures.agents)
        yield from _of_servers(health.agent_servers)
        yield from _of_workers(health)
        yield from _of_records(health)
        errors = _NO_ERRORS | dict(health.internal_errors)
        yield _counter(
            "internal_errors",
            "Failures that nothing has expected.",
            ("work",),
            {(work,): count for work, count in errors.items()},
        )
        yield _gauges(
            "livekit_up",
            "1 while that client's LiveKit server answers.",
            ("client",),
            {(each.client_id,): each.client_id in health.livekit for each in figures.clients},
        )


def _of_clients(clients: Sequence[ClientFigures]) -> Iterator[Metric]:
    for field, about in _COUNTERS.items():
        counted = {(each.client_id,): getattr(each, field) for each in clients}
        yield _counter("joins" if field == "joined" else field, about, ("client",), counted)
    failures = {
        (each.client_id, reason): count
        for each in clients
        for reason, count in (_NONE_FAILED | dict(each.failed)).items()
    }
    yield _counter(
        "failures", "Sessions that ended without an agent.", ("client", "reason"), failures
    )
    states = {
        (each.client_id, str(state)): number
        for each in clients
        for state, number in each.states.items()
    }
    yield _gauges("sessions", "Sessions that have not ended, now.", ("client", "state"), states)
    for name, about in _TIMES.items():
        yield _histogram(name, f"usher_{name}_seconds", about, clients, unit=1000)
    for name, about in _PER_SESSION.items():
        yield _histogram(name, f"usher_session_{name}", about, clients, unit=1)


def _histogram(
    name: str, shown_as: str, about: str, clients: Iterable[ClientFigures], *, unit: int
) -> Metric:
    family = HistogramMetricFamily(shown_as, about, labels=("client",))
    for client in clients:
        found = client.histograms[name]
        upper = [*(str(bound / unit) for bound in found.bounds), "+Inf"]
        up_to = map(float, accumulate(found.counts))
        family.add_metric(
            (client.client_id,), list(zip(upper, up_to, strict=True)), found.sum / unit
        )
    return family


def _of_agents(agents: Sequence[AgentFigures]) -> Iterator[Metric]:
    by_labels = {(each.client_id, each.container, each.agent_name): each for each in agents}
    for name, about in _AGENT_COUNTERS.items():
        counted = {labels: getattr(each, name) for labels, each in by_labels.items()}
        yield _counter(f"agent_{name}", about, _OF_AGENTS, counted)
    for name, about in {"accept": "Jobs accepted.", "reject": "Jobs rejected."}.items():
        reasons = {
            (*labels, reason): count
            for labels, each in by_labels.items()
            for reason, count in getattr(each, f"{name}_reasons").items()
        }
        yield _counter(f"agent_{name}s", about, (*_OF_AGENTS, "reason"), reasons)


def _of_servers(servers: Sequence[AgentServerReport]) -> Iterator[Metric]:
    by_labels = {
        (each.client_id, each.container, each.agent_name, each.agent_server_id): each
        for each in servers
    }
    for name, about in _SERVER_GAUGES.items():
        values = {labels: getattr(each, name) for labels, each in by_labels.items()}
        yield _gauges(f"agent_server_{name}", about, (*_OF_AGENTS, "server"), values)
    online: Counter[tuple[str, ...]] = Counter()
    for each in servers:
        online[each.client_id, each.agent_name] += each.online
    about = "Agent servers registered at LiveKit and not on their way out."
    yield _gauges("agent_servers_online", about, ("client", "agent"), dict(sorted(online.items())))


def _of_workers(health: Health) -> Iterator[Metric]:
    waiting = {(queue,): health.queues.get(queue, 0) for queue in QUEUES}
    yield _gauges("queue_length", "Celery messages that wait.", ("queue",), waiting)
    up = {(queue,): queue in health.workers for queue in QUEUES}
    up[reports.SWEEPER,] = health.sweeper_alive
    about = "1 if a worker serves that queue; sweeper: beat."
    yield _gauges("worker_up", about, ("worker",), up)


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
    yield _counter(
        "data_losses", "How often Redis has lost what it held.", (), {(): health.data_losses}
    )


def _counter(name: str, about: str, labels: Sequence[str], counted: Mapping[Any, float]) -> Metric:
    """Make a counter of the values by their labels."""
    family = CounterMetricFamily(f"usher_{name}", about, labels=labels)
    for values, count in counted.items():
        family.add_metric(values, count)
    return family


def _gauges(name: str, about: str, labels: Sequence[str], values: Mapping[Any, float]) -> Metric:
    """Make a gauge of the values by their labels."""
    family = GaugeMetricFamily(f"usher_{name}", about, labels=labels)
    for label_values, value in values.items():
        family.add_metric(label_values, float(value))
    return family


def _gauge(name: str, about: str, value: float) -> Metric:
    return _gauges(name, about, (), {(): value})
