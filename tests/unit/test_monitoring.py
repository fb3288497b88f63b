"""Do alert rules and dashboard hold together: queries, names, runbook, tests?

promtool says more (`make monitoring`), by a real scrape, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from devstack import PROJECT_ROOT
from dispatcher.domain.metrics import Figures, Window, agent_figures, client_figures
from dispatcher.domain.models import FailureReason
from dispatcher.ledger.statistics import Health
from tests.support.monitoring import (
    DASHBOARD,
    RULES,
    expressions,
    labels_named,
    metrics_named,
    selectors,
)
from tests.support.values import a_server
from web.monitoring import metrics
from web.monitoring.collector import LedgerCollector

RUNBOOK = PROJECT_ROOT / "docs" / "operations.md"
TESTS = PROJECT_ROOT / "monitoring" / "alerts_test.yml"
SEVERITIES = {"critical", "warning", "info"}
ALERTS = [rule for group in RULES["groups"] for rule in group["rules"]]
NAMES = [rule["alert"] for rule in ALERTS]
ids = pytest.mark.parametrize("rule", ALERTS, ids=NAMES)


def anchors() -> dict[str, str]:
    """The headings of the runbook by their anchors, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", RUNBOOK.read_text("utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-"): text for text in headings}


@ids
def test_an_alert_says_how_bad_it_is_what_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in SEVERITIES
    notes = rule["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    assert notes["summary"].endswith(".")
    page, _, anchor = notes["runbook_url"].partition("#")
    assert page == "docs/operations.md"
    assert anchors()[anchor] == rule["alert"], "the runbook has no section of that name"


def test_the_runbook_has_a_section_for_no_other_alert() -> None:
    sections = [text for text in anchors().values() if re.fullmatch(r"Usher[A-Z]\w+", text)]
    assert sections == NAMES, "the same alerts in the same order"


def test_every_alert_is_seen_firing_in_its_tests() -> None:
    scenarios = yaml.safe_load(TESTS.read_text("utf-8"))["tests"]
    fires = set()
    for scenario in scenarios:
        for test in scenario.get("promql_expr_test", []):
            for sample in test["exp_samples"]:
                fires |= set(re.findall(r'alertname="(\w+)"', sample["labels"]))
        fires |= {t["alertname"] for t in scenario.get("alert_rule_test", []) if t["exp_alerts"]}
    assert fires == set(NAMES)


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_a_query_can_be_parsed(where: str, expression: str) -> None:
    promql_parser.parse(expression)


# What every web process counts for itself; everything else is in Redis, the same for all of them.
OF_EACH_INSTANCE = ("usher_http_request_seconds",)


@pytest.mark.parametrize(("where", "expression"), list(expressions()))
def test_what_several_web_instances_tell_alike_is_not_added_up(where: str, expression: str) -> None:
    for name, aggregation in selectors(expression):
        if name.startswith("usher_") and not name.startswith(OF_EACH_INSTANCE):
            assert aggregation in ("max", "min"), f"{where}: {name} within {aggregation or 'no'}()"


def test_every_metric_is_in_the_documentation() -> None:
    documented = (PROJECT_ROOT / "docs" / "metrics.md").read_text("utf-8")
    assert [name for name in sorted(metrics_named()) if f"`{name}" not in documented] == []


def labels_of_metrics(figures: Figures, health: Health) -> dict[str, set[str]]:
    """Every metric of `GET /metrics`, by its name after `# TYPE`, with its series' labels."""
    registry = CollectorRegistry()
    registry.register(LedgerCollector(figures, health))
    registry.register(metrics._request_seconds)
    metrics._request_seconds.labels("POST", "/api/v1/dispatches", "200").observe(0.01)
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        # The parser takes `_total` off a counter's name.
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = {label for sample in family.samples for label in sample.labels}
    return found


def test_every_metric_and_label_that_a_query_speaks_of_is_there() -> None:
    agents = agent_figures("acme", "box-1", "rag", {"accepts:claimed": 1, "rejects:full": 1})
    clients = (client_figures("acme", {}, {}),)
    figures = Figures(at_ms=1, window=Window.ALL, since_ms=0, clients=clients, agents=(agents,))
    there = labels_of_metrics(
        figures, Health(at_ms=1, agent_servers=(a_server(),), sweeper_silent_ms=1)
    )
    assert metrics_named() - there.keys() == set()
    of_prometheus = {"job", "instance"}
    assert {
        (name, label) for name, label in labels_named() if label not in there[name] | of_prometheus
    } == set()


def test_a_failure_that_nobody_has_met_yet_is_a_zero() -> None:
    registry = CollectorRegistry()
    clients = (client_figures("acme", {"failures:rejected: full": 2}, {}),)
    figures = Figures(at_ms=1, window=Window.ALL, since_ms=0, clients=clients, agents=())
    registry.register(LedgerCollector(figures, Health(at_ms=1)))

    def value(reason: str) -> float | None:
        return registry.get_sample_value(
            "usher_failures_total", {"client": "acme", "reason": reason}
        )

    assert value("rejected: full") == 2
    cancelled = {"nobody_came", "superseded", "cancelled_by_client"}
    assert {str(r) for r in FailureReason if value(r) != 0} == cancelled
    assert value("rejected: wrong_container") == 0
    reasons = set(re.findall(r'reason="(\w+)"', str(RULES)))
    assert reasons
    assert [reason for reason in sorted(reasons) if value(reason) is None] == []


def panels() -> Iterator[dict[str, Any]]:
    for panel in DASHBOARD["panels"]:
        yield panel
        yield from panel.get("panels", ())


def test_the_dashboard_can_be_imported_anywhere() -> None:
    assert DASHBOARD["uid"] == "usher"
    assert DASHBOARD["schemaVersion"] >= 39  # Grafana 11
    assert DASHBOARD.get("id") is None, "a number of the Grafana that it was exported from"
    variables = {each["name"]: each for each in DASHBOARD["templating"]["list"]}
    assert variables["datasource"]["type"] == "datasource"
    assert variables["client"]["datasource"]["uid"] == "${datasource}"
    sources = re.findall(r'"uid": "([^"]+)"', json.dumps(DASHBOARD["panels"]))
    assert set(sources) == {"${datasource}"}


def test_the_panels_of_the_dashboard_are_told_apart_and_explained() -> None:
    numbers = [panel["id"] for panel in panels()]
    assert len(set(numbers)) == len(numbers)
    for panel in panels():
        if panel["type"] == "row":
            continue
        assert panel["title"]
        assert panel["description"], panel["title"]
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references), panel["title"]


def test_no_panel_lies_upon_another_or_beside_the_board() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels():
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24, panel["title"]
        fields = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not fields & taken, panel["title"]
        taken |= fields


def test_what_the_runbook_points_to_is_there() -> None:
    text = RUNBOOK.read_text("utf-8")
    there = anchors()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, anchor = target.partition("#")
        if path and not path.startswith("http"):
            assert (RUNBOOK.parent / path).exists(), target
        elif anchor:
            assert anchor in there, target
