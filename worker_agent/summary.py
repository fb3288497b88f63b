"""Log an agent server's numbers.

One line for each client every `USHER_SUMMARY_EVERY_S`, about the last five minutes; and one for
each window as well on SIGUSR1.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Final

from dispatcher.domain.metrics import AgentFigures, Window, percent
from dispatcher.errors import LedgerUnavailable
from worker_agent.decisions import AgentServerIdentity
from worker_agent.metrics import AgentMetrics

logger = logging.getLogger(__name__)

_SINCE_START: Final = "this process's own, Redis does not answer"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "none"


def fields(figures: AgentFigures, window: str) -> dict[str, object]:
    """Make the fields of a summary's line."""
    return {
        **asdict(figures),
        "window": window,
        "requests": figures.requests,
        "accepts": figures.accepts,
        "rejects": figures.rejects,
        "acceptance_rate": percent(figures.acceptance_rate),
        "rejection_rate": percent(figures.rejection_rate),
        "accept_reasons": _listed(figures.accept_reasons),
        "reject_reasons": _listed(figures.reject_reasons),
    }


class Summaries:
    """Logs the numbers of one agent server's container."""

    def __init__(self, server: AgentServerIdentity, metrics: AgentMetrics) -> None:
        self._nothing = AgentFigures(
            client_id=server.client_id, container=server.container, agent_name=server.agent_name
        )
        self._metrics = metrics
        self._asked = asyncio.Event()

    async def run(self, *, every_s: float) -> None:
        """Log until cancelled; with 0 only when asked."""
        # A loop that does not run in the main thread gets no signals.
        with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
            asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self._asked.set)
        while True:
            try:
                async with asyncio.timeout(every_s or None):
                    await self._asked.wait()
            except TimeoutError:
                await self.log([Window.MINUTES])
                continue
            self._asked.clear()
            await self.log(Window)

    async def log(self, windows: Iterable[Window]) -> None:
        """Log the summary of each window now."""
        await self._metrics.flush()
        try:
            for window in windows:
                self._log(await self._metrics.read(window), window)
        except LedgerUnavailable:
            self._log(self._metrics.own(), _SINCE_START)

    def _log(self, figures: tuple[AgentFigures, ...], window: str) -> None:
        for each in figures or (self._nothing,):
            logger.info("agent summary", extra=fields(each, window))
