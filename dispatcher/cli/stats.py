"""`dispatch stats`: show the ledger's statistics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Final

import click

from dispatcher.cli import reach, rendering
from dispatcher.cli.command import Command, emit, printable
from dispatcher.cli.options import client_option
from dispatcher.domain.metrics import (
    TIMES,
    AgentFigures,
    ClientFigures,
    Figures,
    Histogram,
    Window,
    percent,
)
from dispatcher.explain.incidents import seconds
from dispatcher.ledger import statistics

_QUANTILES: Final = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_RATES: Final = ("requests", "accepts", "rejects", "acceptance_rate", "rejection_rate")
# Counters that are shown only where one of them is not 0.
_ODD: Final = (
    *("agents_lost", "idle_agents_lost", "agents_crashed", "surplus_agents", "foreign_agents"),
    *("restored", "redispatches", "webhooks_dead"),
)


@click.command(
    "stats",
    cls=Command,
    examples=("stats", "stats --window 5m --client acme", "stats --window all --json"),
)
@click.option(
    "--window",
    type=click.Choice([window.value for window in Window]),
    default=Window.HOUR.value,
    show_default=True,
    help="How far back; all: since Redis was empty.",
)
@client_option("Only this client's.")
def command(window: str, client_id: str | None, as_json: bool) -> None:
    """Show success, failures, times and rejects, by client."""
    wanted = (client_id,) if client_id else (*reach.client_ids(), statistics.NOT_OURS)
    counted = statistics.read(reach.open_ledger(), Window(window), wanted)
    if as_json:
        emit(as_shape(counted))
    else:
        click.echo("\n".join(_lines(counted)))


def as_shape(counted: Figures) -> dict[str, Any]:
    """Return the statistics as --json prints them."""
    return {
        **asdict(counted),
        "clients": [_client(client) for client in counted.clients],
        "agents": [_agent(agent) for agent in counted.agents],
    }


def _client(client: ClientFigures) -> dict[str, Any]:
    return {
        **asdict(client),
        "failures": client.failures,
        "success_rate": client.success_rate,
        "histograms": {name: _histogram(h) for name, h in client.histograms.items()},
    }


def _histogram(of: Histogram) -> dict[str, Any]:
    quantiles = {name: of.quantile(q) for name, q in _QUANTILES.items()}
    return {**asdict(of), "mean": of.mean, **quantiles}


def _agent(agent: AgentFigures) -> dict[str, Any]:
    return {**asdict(agent), **{name: getattr(agent, name) for name in _RATES}}


def _lines(counted: Figures) -> Iterator[str]:
    since = (
        f"since {rendering.clock(counted.since_ms, date=True)}"
        if counted.since_ms
        else "ever since"
    )
    yield f"window {counted.window} ({since})"
    for client in counted.clients:
        yield ""
        yield from _of_client(client)
    if counted.agents:
        yield ""
        heads = ("agent", "container", "client", "requests", "accepted", "rejected", "why rejected")
        yield from rendering.table(heads, [_agent_row(agent) for agent in counted.agents])


def _of_client(client: ClientFigures) -> Iterator[str]:
    yield click.style(f"client {printable(client.client_id)}", bold=True)
    yield (
        f"  {client.dispatches} dispatches, {client.served} joined, {client.unserved} failed, "
        f"{client.cancelled} cancelled, {client.ended} ended; "
        f"success {percent(client.success_rate)}"
    )
    if client.failed:
        yield f"  failed for: {_by_count(client.failed)}"
    now = {str(state): count for state, count in client.states.items() if count}
    yield f"  now: {_by_count(now) if now else 'no session'}"
    odd = {name.replace("_", " "): count for name in _ODD if (count := getattr(client, name))}
    if odd:
        yield f"  {_by_count(odd)}"
    times = {name: client.histograms[name] for name in TIMES if name in client.histograms}
    if any(histogram.total for histogram in times.values()):
        heads = ("  stage", "count", "mean", *_QUANTILES)
        yield from rendering.table(heads, [_time_row(*each) for each in times.items()])
    if (to_join := client.histograms.get("time_to_join")) and to_join.total:
        yield from _distribution(to_join)


def _by_count(counts: Mapping[str, int]) -> str:
    return printable(", ".join(f"{name} {count}" for name, count in counts.items()))


def _time_row(name: str, histogram: Histogram) -> tuple[str, ...]:
    values = (histogram.mean, *(histogram.quantile(q) for q in _QUANTILES.values()))
    shown = ("-" if value is None else seconds(value) for value in values)
    return (f"  {name}", str(histogram.total), *shown)


def _distribution(histogram: Histogram) -> Iterator[str]:
    yield "  time to join"
    most = max(histogram.counts)
    labels = [f"<= {seconds(bound)}" for bound in histogram.bounds]
    labels.append(f" > {seconds(histogram.bounds[-1])}")
    filled = [at for at, count in enumerate(histogram.counts) if count]
    for at in range(filled[0], filled[-1] + 1):
        count = histogram.counts[at]
        picture = rendering.bar(count, most) if count else ""
        yield f"  {labels[at]:>12}  {count:>6}  {picture}".rstrip()


def _agent_row(agent: AgentFigures) -> tuple[str, ...]:
    return (
        agent.agent_name,
        agent.container,
        agent.client_id or "(not ours)",
        str(agent.requests),
        f"{agent.accepts} ({percent(agent.acceptance_rate)})",
        f"{agent.rejects} ({percent(agent.rejection_rate)})",
        ", ".join(f"{reason} {count}" for reason, count in agent.reject_reasons.items()),
    )
