"""`GET /metrics`, for Prometheus.

It has what the ledger has counted, the same from every process, and the web processes' answer
times (docs/metrics.md). Each web process keeps its own in a file, in prometheus_client's
multiprocess mode (`web/gunicorn_conf.py`); without gunicorn, as in a test, in memory.
"""

from __future__ import annotations

import os
import time
from functools import cache
from typing import Final

from flask import Blueprint, Response, g, request
from prometheus_client import CollectorRegistry, Histogram, disable_created_metrics, exposition
from prometheus_client.multiprocess import MultiProcessCollector

from dispatcher.domain.metrics import Window
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import reports, statistics
from web.auth.operator import is_on_this_machine, require_operator
from web.monitoring.collector import LedgerCollector
from web.services import services

blueprint = Blueprint("metrics", __name__)

DIRECTORY: Final = "PROMETHEUS_MULTIPROC_DIR"
# In the environment of a rehearsed request (`web/app.py`), which is not counted.
REHEARSAL: Final = "usher.rehearsal"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})

disable_created_metrics()  # type: ignore[no-untyped-call]
_request_seconds = Histogram(
    "usher_http_request_seconds",
    "From a whole request to its answer; of an event stream to its beginning.",
    ("method", "route", "status"),
    registry=None,
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5),
)


@blueprint.before_app_request
def _begin() -> None:
    g.usher_began = time.perf_counter()


@blueprint.after_app_request
def _time(response: Response) -> Response:
    if REHEARSAL not in request.environ:
        # By the rule, not by the path: paths that callers make up must not become labels.
        method = request.method if request.method in _METHODS else "other"
        route = request.url_rule.rule if request.url_rule else "none"
        timer = _timer(method, route, response.status_code)
        timer.observe(time.perf_counter() - g.usher_began)
    return response


@cache
def _timer(method: str, route: str, status: int) -> Histogram:
    """Return the histogram of these labels, which prometheus_client takes longer to find."""
    return _request_seconds.labels(method, route, str(status))


def _look_at_ledger() -> LedgerCollector:
    here = services()
    client_ids = [client.client_id for client in here.clients.clients]
    try:
        here.ledger.run(reports.probe())
        return LedgerCollector(
            statistics.read(here.ledger, Window.ALL, [*client_ids, statistics.NOT_OURS]),
            here.ledger.run(statistics.health()),
        )
    except LedgerUnavailable:
        return LedgerCollector()


@blueprint.get("/metrics")
def metrics() -> Response:
    """Show every metric to the operator; with USHER_METRICS_LOCAL, to this machine, too."""
    if not (services().settings.metrics_local and is_on_this_machine()):
        require_operator()
    registry = CollectorRegistry()
    registry.register(_look_at_ledger())
    if DIRECTORY in os.environ:
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    else:
        registry.register(_request_seconds)
    encode, content_type = exposition.choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(registry), content_type=content_type)
