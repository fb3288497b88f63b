"""Read how many jobs the agent servers have accepted, by container.

From `GET /metrics` where it may be read, else from Redis, if REDIS_URL is the deployment's.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from dispatcher.domain.metrics import Window
from dispatcher.errors import ConfigurationError, LedgerUnavailable
from dispatcher.ledger import statistics
from dispatcher.ledger.client import Ledger
from dispatcher.ledger.dispatches import read
from dispatcher.selftest.deployment import Deployment, NoAnswer
from dispatcher.settings import CommonSettings, load

_ACCEPTS: Final = "usher_agent_accepts_total"
_WITHIN_S: Final = 5.0


@dataclass(frozen=True, kw_only=True)
class Accepts:
    """Jobs that agent servers have accepted, by container, and the source of the numbers."""

    by_container: Mapping[str, int]
    source: str


class Counters:
    """A reader of the counters; `why_not` says why there are none."""

    def __init__(self, deployment: Deployment, operator_auth: str) -> None:
        self._deployment = deployment
        self._auth: aiohttp.BasicAuth | None = None
        if operator_auth:
            user, _, password = operator_auth.partition(":")
            self._auth = aiohttp.BasicAuth(user, password)
        self.why_not = ""

    async def read(self, dispatch_id: str) -> Accepts | None:
        """Return the counters now; None if they may not be read.

        In Redis the client of `dispatch_id` says whose counters they are.
        """
        found = await self._by_http()
        return found or await asyncio.to_thread(self._by_redis, dispatch_id)

    async def _by_http(self) -> Accepts | None:
        headers = {"Authorization": self._auth.encode()} if self._auth else {}
        try:
            answer = await self._deployment.ask("GET", "/metrics", headers=headers)
        except NoAnswer as error:
            self.why_not = str(error)
            return None
        if answer.status != 200:
            self.why_not = f"GET /metrics: {answer.detail}"
            return None
        found: Counter[str] = Counter()
        for family in text_string_to_metric_families(str(answer.body.get("text", ""))):
            for sample in family.samples:
                if sample.name == _ACCEPTS:
                    found[sample.labels.get("container", "")] += int(sample.value)
        return Accepts(by_container=found, source="GET /metrics")

    def _by_redis(self, dispatch_id: str) -> Accepts | None:
        try:
            store = Ledger(load(CommonSettings))
            dispatch = store.run(read(dispatch_id))
        except (ConfigurationError, LedgerUnavailable) as error:
            self.why_not += f"; Redis: {error}"
            return None
        if dispatch is None:
            self.why_not += "; REDIS_URL is another deployment's"
            return None
        counted = statistics.read(store, Window.ALL, [dispatch.client_id])
        found: Counter[str] = Counter()
        for agent in counted.agents:
            found[agent.container] += agent.accepts
        return Accepts(by_container=found, source="Redis")


def rises(before: Accepts, after: Accepts) -> dict[str, int]:
    """Return by how much each container's counter has risen."""
    return {
        container: count - before.by_container.get(container, 0)
        for container, count in after.by_container.items()
    }


def too_little(rose: Mapping[str, int], expected: Mapping[str, int]) -> str:
    """Name the containers that counted fewer jobs than they served; more may be other callers'."""
    return ", ".join(
        f"{container}: {rose.get(container, 0)} of {count}"
        for container, count in expected.items()
        if rose.get(container, 0) < count
    )
