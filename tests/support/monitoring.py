"""The metrics and labels that the alert rules and the Grafana dashboard use."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import promql_parser
import yaml

from devstack import PROJECT_ROOT

_FOLDER = PROJECT_ROOT / "monitoring"
RULES: dict[str, Any] = yaml.safe_load((_FOLDER / "alerts.yml").read_text("utf-8"))
DASHBOARD: dict[str, Any] = json.loads((_FOLDER / "grafana-dashboard.json").read_text("utf-8"))

# Grafana replaces these variables before it queries Prometheus.
_VARIABLES = {"$__rate_interval": "5m", "$client": ".*"}


def expressions() -> Iterator[tuple[str, str]]:
    """Yield every query, with its place."""
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield f"{panel['title']} {target['refId']}", _filled(target["expr"])
    for annotation in DASHBOARD["annotations"]["list"]:
        if "expr" in annotation:
            yield f"annotation {annotation['name']}", _filled(annotation["expr"])


def _filled(expression: str) -> str:
    for name, value in _VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def selectors(expression: str) -> list[tuple[str, str]]:
    """Return the metrics of a query, each with its innermost aggregation ("": none)."""
    return list(_selectors(promql_parser.parse(expression), ""))


def _selectors(node: Any, aggregation: str) -> Iterator[tuple[str, str]]:
    if isinstance(node, promql_parser.VectorSelector):
        yield node.name, aggregation
    elif isinstance(node, promql_parser.MatrixSelector):
        yield node.vector_selector.name, aggregation
    elif isinstance(node, promql_parser.AggregateExpr):
        yield from _selectors(node.expr, str(node.op))
    elif isinstance(node, promql_parser.BinaryExpr):
        yield from _selectors(node.lhs, aggregation)
        yield from _selectors(node.rhs, aggregation)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            yield from _selectors(argument, aggregation)
    elif hasattr(node, "expr"):  # in parentheses, negated, a subquery
        yield from _selectors(node.expr, aggregation)


def metrics_named() -> set[str]:
    """Return the names of our metrics as /metrics has them after `# TYPE`."""
    names = {name for _, text in expressions() for name, _ in selectors(text)}
    ours = {name for name in names if name.startswith("usher_")}
    return {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours}


def labels_named() -> set[tuple[str, str]]:
    """Return metric and label of every matcher and every grouping in the queries."""
    found: set[tuple[str, str]] = set()
    for _, expression in expressions():
        _collect(promql_parser.parse(expression), (), found)
    return {
        (re.sub(r"_(bucket|sum|count)$", "", name), label)
        for name, label in found
        if name.startswith("usher_")
    }


def _collect(node: Any, grouping: tuple[str, ...], found: set[tuple[str, str]]) -> None:
    if isinstance(node, promql_parser.MatrixSelector):
        node = node.vector_selector
    if isinstance(node, promql_parser.VectorSelector):
        matched = (matcher.name for matcher in node.matchers.matchers)
        found |= {(node.name, label) for label in (*matched, *grouping)}
    elif isinstance(node, promql_parser.AggregateExpr):
        by = node.modifier is not None and node.modifier.type == promql_parser.AggModifierType.By
        _collect(node.expr, (*grouping, *(node.modifier.labels if by else ())), found)
    elif isinstance(node, promql_parser.BinaryExpr):
        _collect(node.lhs, grouping, found)
        _collect(node.rhs, grouping, found)
    elif isinstance(node, promql_parser.Call):
        for argument in node.args:
            _collect(argument, grouping, found)
    elif hasattr(node, "expr"):
        _collect(node.expr, grouping, found)
