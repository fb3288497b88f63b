"""Read how many jobs the agent servers have accepted, by container.

From `GET /metrics` where it may be read, else from Redis, if REDIS_URL is the deployment's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from dispatcher.domain.metrics import Window
from dispatcher.errors import UsherError
from dispatcher.ledger import statistics
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.dispatches import read
from dispatcher.selftest.deployment import Deployment
from dispatcher.selftest.results import Skipped
from dispatcher.settings import CommonSettings, load

_ACCEPTS: Final = "usher_agent_accepts_total"


@dataclass(frozen=True, kw_only=True)
class Accepts:
    """Jobs that agent servers have accepted, by container, and the source of the numbers."""

    by_container: Counter[str]
    source: str


async def accepts(deployment: Deployment, operator_auth: str, dispatch_id: str) -> Accepts:
    """Return the counters now; in Redis the client of `dispatch_id` says whose they are.

    Raises:
        Skipped: they may not be read.
    """
    try:
        return await _by_http(deployment, operator_auth)
    except UsherError as error:
        return await asyncio.to_thread(_by_redis, dispatch_id, str(error))


async def _by_http(deployment: Deployment, operator_auth: str) -> Accepts:
    user, _, password = operator_auth.partition(":")
    auth = aiohttp.BasicAuth(user, password) if operator_auth else None
    answer = await deployment.ask("GET", "/metrics", auth=auth)
    if answer.status != 200:
        raise Skipped(f"GET /metrics: {answer.detail}")
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families(str(answer.body.get("text", ""))):
        for sample in family.samples:
            if sample.name == _ACCEPTS:
                found[sample.labels.get("container", "")] += int(sample.value)
    return Accepts(by_container=found, source="GET /metrics")


def _by_redis(dispatch_id: str, why_not_http: str) -> Accepts:
    try:
        store = Ledger(load(CommonSettings))
        dispatch = store.run(read(dispatch_id))
    except UsherError as error:
        raise Skipped(f"{why_not_http}; Redis: {error}") from None
    if dispatch is None:
        raise Skipped(f"{why_not_http}; REDIS_URL is another deployment's")
    found: Counter[str] = Counter()
    for agent in statistics.read(store, Window.ALL, [dispatch.client_id]).agents:
        found[agent.container] += agent.accepts
    return Accepts(by_container=found, source="Redis")


def too_little(rose: Counter[str], expected: Counter[str]) -> str:
    """Name the containers that counted fewer jobs than they served; more may be other callers'."""
    return ", ".join(f"{name}: {rose[name]} of {expected[name]}" for name in expected - rose)
