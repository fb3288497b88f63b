"""Count what an agent server answers, in Redis.

One hash per client, container and agent name adds up over agent servers and job processes. What
follows from a change of a record is counted in the ledger's own step; everything else is noted here
and told in numbered batches, each of which counts once however often it is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Mapping
from typing import Final

from dispatcher.domain.metrics import AgentCounts, AgentFigures, Window, agent_figures
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import keys, reports, statistics
from dispatcher.ledger.async_client import AsyncLedger
from worker_agent.decisions import AgentServerIdentity, Decision

JOINED: Final[Mapping[str, int]] = {"joins": 1}
LEFT: Final[Mapping[str, int]] = {"leaves": 1}
ASSIGNMENT_TIMED_OUT: Final[Mapping[str, int]] = {"assignment_timeouts": 1}
ADOPTED: Final[Mapping[str, int]] = {"adoptions": 1}

# The batches of one job, which is its own reporter.
ADOPTION_BATCH, JOIN_BATCH, LEAVE_BATCH = 1, 2, 3

# The answer to LiveKit's offer waits for it so long; what is not told by then is told later.
FLUSH_S: Final = 0.2
_MAX_GRANTED: Final = 10_000


def answered(decision: Decision) -> Mapping[str, int]:
    """Make the increments for a job that was answered, with the reason."""
    kind = "accepts" if decision.accept else "rejects"
    return {f"{kind}:{decision.reason}": 1}


class AgentMetrics:
    """The numbers of one agent server; for one event loop."""

    def __init__(self, server: AgentServerIdentity, store: AsyncLedger) -> None:
        self._server = server
        self._store = store
        self._own: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._pending: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._batch: tuple[AgentCounts, ...] = ()
        self._number = 0
        self._telling = asyncio.Lock()
        self._granted: OrderedDict[str, None] = OrderedDict()

    def counts(self, client_id: str, increments: Mapping[str, int]) -> AgentCounts:
        """Make increments of this agent server's counters for one client."""
        server = self._server
        key = keys.agent_metrics(client_id, server.container, server.agent_name)
        return AgentCounts(key=key, increments=increments)

    def granted(self, client_id: str, job_id: str, decision: Decision) -> None:
        """Note that the ledger has counted this accept, in the step that has granted the claim."""
        self._granted[job_id] = None
        if len(self._granted) > _MAX_GRANTED:
            self._granted.popitem(last=False)
        self._own[client_id].update(answered(decision))

    def was_granted(self, job_id: str) -> bool:
        """True when this process knows that the ledger has counted an accept of that job."""
        return job_id in self._granted

    def note(self, client_id: str, increments: Mapping[str, int]) -> None:
        """Count something that the ledger is told later."""
        self._own[client_id].update(increments)
        self._pending[client_id].update(increments)

    async def flush(self, *, within_s: float = FLUSH_S) -> None:
        """Tell the ledger what has been noted; what does not arrive now is told again later."""
        with contextlib.suppress(LedgerUnavailable, TimeoutError):
            async with asyncio.timeout(within_s), self._telling:
                while self._batch or self._pending:
                    if not self._batch:
                        self._batch = tuple(
                            self.counts(client_id, noted)
                            for client_id, noted in self._pending.items()
                        )
                        self._pending.clear()
                        self._number += 1
                    reporter = self._server.agent_server_id
                    await self._store.run(reports.count(reporter, self._number, self._batch))
                    self._batch = ()

    def own(self) -> tuple[AgentFigures, ...]:
        """Return what this process itself has counted since its start, told or not."""
        server = self._server
        return tuple(
            agent_figures(client_id, server.container, server.agent_name, counters)
            for client_id, counters in sorted(self._own.items())
        )

    async def read(self, window: Window) -> tuple[AgentFigures, ...]:
        """Read what all agent servers of this container and agent name have counted, by client.

        An agent server of a single client reads that client's numbers only.

        Raises:
            LedgerUnavailable: Redis did not answer.
        """
        server = self._server
        client_ids = (server.client_id,) if server.client_id else (statistics.EVERY,)
        found = await statistics.read_async(self._store, window, client_ids)
        return tuple(
            each
            for each in found.agents
            if (each.container, each.agent_name) == (server.container, server.agent_name)
        )
