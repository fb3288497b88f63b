"""Pure functions that make the dashboard's JSON of figures, health and records.

The JSON has only what the pages show: no agent's or participant's metadata, no token, no key.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dispatcher.domain.metrics import AgentFigures, ClientFigures, Figures, Histogram, histogram
from dispatcher.domain.models import AgentServerReport, Dispatch
from dispatcher.domain.timing import Timings
from dispatcher.explain.explanation import explain
from dispatcher.explain.stages import stages
from dispatcher.ledger.queries import Page
from dispatcher.ledger.statistics import Health
from web.contract.answer_schemas import dispatch_answer, dispatch_summary

_QUANTILES = {"p50_ms": 0.5, "p95_ms": 0.95, "p99_ms": 0.99}


def _time_to_join(clients: Sequence[ClientFigures]) -> Histogram:
    """Add up the clients' histograms of the time to join."""
    empty = histogram("time_to_join", {})
    found = [empty, *(each.histograms["time_to_join"] for each in clients)]
    columns = zip(*(each.counts for each in found), strict=True)
    return Histogram(
        bounds=empty.bounds,
        counts=tuple(sum(column) for column in columns),
        total=sum(each.total for each in found),
        sum=sum(each.sum for each in found),
    )


def success_answer(clients: Sequence[ClientFigures]) -> dict[str, Any]:
    """Count the sessions that got an agent and those that failed, over one window."""
    joined = sum(each.served for each in clients)
    failed = sum(each.unserved for each in clients)
    return {
        "dispatches": sum(each.dispatches for each in clients),
        "joined": joined,
        "failed": failed,
        "success_rate": joined / (joined + failed) if joined + failed else None,
    }


def _histogram_answer(shown: Histogram) -> dict[str, Any]:
    """Show a histogram; the last bucket, above all bounds, has the `up_to_ms` None."""
    return {
        "count": shown.total,
        "mean_ms": shown.mean,
        **{name: shown.quantile(q) for name, q in _QUANTILES.items()},
        "buckets": [
            {"up_to_ms": bound, "count": count}
            for bound, count in zip((*shown.bounds, None), shown.counts, strict=True)
        ],
    }


def _by_reason(counts: Iterable[Mapping[str, int]]) -> list[dict[str, Any]]:
    total: Counter[str] = Counter()
    for each in counts:
        total.update(each)
    # Equal counts in the order of their names, so that unchanged figures do not move.
    ordered = sorted(total.items(), key=lambda item: (-item[1], item[0]))
    return [{"reason": reason, "count": count} for reason, count in ordered if count]


def states_answer(clients: Sequence[ClientFigures]) -> dict[str, int]:
    """Count the sessions that have not ended, by state."""
    total: Counter[str] = Counter()
    for each in clients:
        total.update({state.value: count for state, count in each.states.items()})
    return dict(total)


def window_answer(figures: Figures) -> dict[str, Any]:
    """Show the figures of one window."""
    return {
        "time_to_join": _histogram_answer(_time_to_join(figures.clients)),
        "failures": _by_reason(each.failed for each in figures.clients),
        "rejects": _by_reason(each.reject_reasons for each in figures.agents),
        "requests": sum(each.requests for each in figures.agents),
        "agents": [_agent_answer(each) for each in figures.agents],
    }


def _agent_answer(agent: AgentFigures) -> dict[str, Any]:
    return {
        "client_id": agent.client_id,
        "container": agent.container,
        "agent_name": agent.agent_name,
        "requests": agent.requests,
        "accepts": agent.accepts,
        "rejects": agent.rejects,
        "acceptance_rate": agent.acceptance_rate,
    }


def _server_answer(server: AgentServerReport) -> dict[str, Any]:
    return {**asdict(server), "online": server.online, "free_slots": server.free_slots}


def _seconds(ms: int | None) -> int | None:
    # Whole seconds: an answer with milliseconds would differ, and be sent, each time.
    return None if ms is None else ms // 1000


def health_answer(
    health: Health, missing: Sequence[str], client_ids: Sequence[str]
) -> dict[str, Any]:
    """Show the health of all parts; of agent servers only those that serve these clients."""
    servers = [each for each in health.agent_servers if each.client_id in ("", *client_ids)]
    servers.sort(key=lambda each: (each.agent_name, each.container, each.agent_server_id))
    return {
        "agent_servers": [_server_answer(each) for each in servers],
        "queues": dict(health.queues),
        "workers": sorted(health.workers),
        "waiting": health.waiting,
        "oldest_waiting_s": _seconds(health.oldest_waiting_ms),
        "overdue": health.overdue,
        "oldest_overdue_s": _seconds(health.oldest_overdue_ms),
        "sweeper_silent_s": _seconds(health.sweeper_silent_ms),
        "parked": health.parked,
        "data_losses": health.data_losses,
        "missing": list(missing),
    }


def failure_answer(dispatch: Dispatch, timings: Timings) -> dict[str, Any]:
    """Show a line of the newest failures, with the cause in words."""
    explanation = explain(dispatch, timings)
    return {
        **summary_answer(dispatch),
        "headline": explanation.headline,
        "cause": explanation.cause,
    }


def summary_answer(dispatch: Dispatch) -> dict[str, Any]:
    """Show a line of a list of sessions: as the API lists it, and its client."""
    return {
        **dispatch_summary(dispatch),
        "client_id": dispatch.client_id,
        "updated_at_ms": dispatch.updated_at_ms,
    }


def page_answer(page: Page, *, at_ms: int) -> dict[str, Any]:
    """Show a page of sessions, with the cursor of the next."""
    return {
        "at_ms": at_ms,
        "sessions": [summary_answer(dispatch) for dispatch in page.dispatches],
        "next_cursor": str(page.next) if page.next else None,
    }


def session_answer(dispatch: Dispatch, timings: Timings, *, flower_url: str = "") -> dict[str, Any]:
    """Show one session whole."""
    return {
        **dispatch_answer(dispatch),
        "client_id": dispatch.client_id,
        "at_ms": dispatch.read_at_ms,
        "terminal": dispatch.terminal,
        "requested_at_ms": dispatch.requested_at_ms,
        "agent_server_id": dispatch.agent_server_id,
        "job_id": dispatch.job_id,
        "livekit_dispatch_id": dispatch.livekit_dispatch_id,
        "attempts_dropped": dispatch.attempts_dropped,
        "timeline_dropped": dispatch.timeline_dropped,
        "stages": [asdict(stage) for stage in stages(dispatch)],
        "explanation": asdict(explain(dispatch, timings)),
        "flower_url": flower_url,
    }
