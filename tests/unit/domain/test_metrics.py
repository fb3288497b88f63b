"""Do the numbers say what they count? Rates, means and quantiles, with nothing and with much."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from dispatcher.domain.metrics import (
    BOUNDS,
    OPEN_STATES,
    AgentFigures,
    ClientFigures,
    Histogram,
    Window,
    agent_figures,
    client_figures,
    histogram,
    percent,
)
from dispatcher.domain.models import TERMINAL, State
from dispatcher.ledger import keys
from dispatcher.ledger.scripts import script

EMPTY = Histogram(bounds=(1.0, 2.0), counts=(0, 0, 0), total=0, sum=0.0)


def spread(values: list[int], name: str = "offer") -> Histogram:
    """The histogram of these values, put into their buckets one by one."""
    counters: Counter[str] = Counter()
    for value in values:
        bound = next((str(b) for b in BOUNDS[name] if value <= b), "inf")
        counters.update({f"{name}:{bound}": 1, f"{name}:sum": value})
    return histogram(name, counters)


def test_of_nothing_there_is_no_rate_no_mean_and_no_quantile() -> None:
    agent = AgentFigures(client_id="acme", container="box-1", agent_name="a")
    assert (agent.requests, agent.acceptance_rate, agent.rejection_rate) == (0, None, None)
    assert ClientFigures(client_id="acme").success_rate is None
    assert (EMPTY.mean, EMPTY.quantile(0.5)) == (None, None)
    assert percent(None) == "n/a"


def test_rates_are_shares_of_what_was_answered() -> None:
    counters = {"accepts:claimed": 5, "accepts:adopted": 1, "rejects:full": 2, "joins": 4}
    agent = agent_figures("acme", "box-1", "a", counters)

    assert (agent.requests, agent.accepts, agent.rejects, agent.joins) == (8, 6, 2, 4)
    assert (agent.acceptance_rate, agent.rejection_rate) == (0.75, 0.25)
    assert agent.accept_reasons == {"claimed": 5, "adopted": 1}
    assert percent(agent.acceptance_rate) == "75.0 %"


def test_a_clients_failures_add_up_and_the_most_frequent_comes_first() -> None:
    counters = {"failures:rejected: full": 1, "failures:no_capacity": 1}
    # Two of those that joined lost their agents later, and two agents took the place of others.
    counters |= {"joined": 10, "sessions_joined": 8, "sessions_failed": 2, "sessions_lost": 2}
    counters |= {"failures:join_timeout": 2, "failures": 4, "unknown": 7}
    client = client_figures("acme", counters, {State.JOINED: 3})

    assert list(client.failed.items()) == [
        ("join_timeout", 2),
        ("no_capacity", 1),
        ("rejected: full", 1),
    ]
    assert client.failures == 4
    assert client.success_rate == 0.6
    assert client.states == {**dict.fromkeys(OPEN_STATES, 0), State.JOINED: 3}


def test_a_value_on_a_bound_is_in_that_bounds_bucket_and_one_above_all_in_the_last() -> None:
    found = spread([1, 2, 60_000, 60_001])

    assert dict(zip((*found.bounds, None), found.counts, strict=True)) == {
        **dict.fromkeys(found.bounds, 0),
        1.0: 1,
        5.0: 1,
        60_000.0: 1,
        None: 1,
    }
    assert (found.total, found.sum, found.mean) == (4, 120_004.0, 30_001.0)


@pytest.mark.parametrize("q", [0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 1.0])
def test_a_quantile_is_in_the_bucket_of_the_true_one(q: float) -> None:
    values = sorted(random.Random(7).randrange(0, 25_000) for _ in range(999))
    true = values[max(0, -(-int(q * 1000 * len(values)) // 1000) - 1)]
    bounds = (0.0, *map(float, BOUNDS["offer"]))
    at = next(index for index, bound in enumerate(bounds) if true <= bound)

    found = spread(values).quantile(q)

    assert found is not None
    assert bounds[at - 1] <= found <= bounds[at]


def test_a_quantile_above_all_bounds_is_the_greatest_bound() -> None:
    assert spread([70_000] * 3).quantile(0.5) == 60_000.0


def test_windows_are_as_long_as_their_names() -> None:
    assert [(w.value, w.minutes) for w in Window] == [
        ("5m", 5),
        ("1h", 60),
        ("1d", 24 * 60),
        ("all", 0),
    ]


def test_a_session_is_open_or_has_ended() -> None:
    assert set(OPEN_STATES) | TERMINAL == set(State)
    assert len(OPEN_STATES) == len(set(OPEN_STATES))


def test_the_scripts_know_the_same_bounds_and_states() -> None:
    source = script("advance")

    for name, bounds in BOUNDS.items():
        assert f"{name} = {{{', '.join(map(str, bounds))}}}" in source
    for place, state in enumerate(OPEN_STATES, 1):
        assert f"{state} = {place}" in source


@pytest.mark.parametrize("names", [("acme", "box:1", "räum %"), ("", "", "")])
def test_the_names_can_be_read_out_of_a_key(names: tuple[str, str, str]) -> None:
    assert keys.names_of_agent_metrics(keys.agent_metrics(*names)) == names
