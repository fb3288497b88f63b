"""Wake waiting dispatches when an agent server reports free slots.

An agent server that reports free slots while dispatches wait publishes that on a channel. Every
dispatch worker subscribes; two that wake the same dispatch do no harm.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from kombu.exceptions import OperationalError

from dispatcher.domain.agent_servers import can_take, slots_for
from dispatcher.domain.models import AgentServerReport, Dispatch
from dispatcher.domain.timing import look_again_in_s
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import dispatches, keys, leases, reports
from dispatcher.ledger.guarding import Work
from dispatcher.lifecycle.services import Services
from dispatcher.lifecycle.sweeping import PUSH_S, publish_all, read_or_park

logger = logging.getLogger(__name__)

_CANDIDATES: Final = 100
# In a burst every accepted job reports free slots again, and one look serves many.
_GAP_S: Final = 0.1


async def listen(services: Services) -> None:
    """Wake waiting dispatches whenever agent servers have free slots; never returns."""
    async with services.wakeups.listen_on(keys.CAPACITY_CHANNEL) as news:
        while True:
            await news.wait()
            news.clear()
            try:
                async with services.guard.one(Work.WAKE_FOR_CAPACITY):
                    await publish_all(services, await waiting_for(services))
            except (LedgerUnavailable, OperationalError) as error:
                logger.warning("cannot wake who waits", extra={"error": str(error)})
            await asyncio.sleep(_GAP_S)


async def waiting_for(services: Services) -> list[Dispatch]:
    """Return the waiting dispatches to wake a worker for, now that slots are reported free.

    Each client's oldest first, the clients in turn, and no more than there are free slots.
    """
    servers = await services.ledger.run(reports.agent_servers())
    free = sum(server.free_slots for server in servers)
    if not free:
        return []
    # More than there are free slots: some wait for agents that no agent server has reported.
    limit = free + _CANDIDATES
    ids = await services.ledger.run(leases.pick_waiting(limit=limit, push_s=PUSH_S))
    left: dict[tuple[str, str, str], int] = {}  # by client, agent name, deployment
    wake_ups: list[Dispatch] = []
    for dispatch_id in ids:
        async with services.guard.one(Work.WAKE_FOR_CAPACITY, of=dispatch_id):
            dispatch = await read_or_park(services, dispatch_id)
            if dispatch is None:
                continue
            agent = dispatch.client_id, dispatch.agent_name, dispatch.deployment
            if agent not in left:
                left[agent] = await _left_to_send(services, dispatch, servers)
            if left[agent] > 0 and len(wake_ups) < free and can_take(dispatch, servers):
                left[agent] -= 1
                wake_ups.append(dispatch)
            else:
                pause_s = look_again_in_s(dispatch, services.settings.wait_s)
                await services.ledger.run(dispatches.defer(dispatch_id, due_in_s=pause_s))
    return wake_ups


async def _left_to_send(
    services: Services, dispatch: Dispatch, servers: Sequence[AgentServerReport]
) -> int:
    """Return how many more dispatches of the same client and agent may be sent now."""
    step = leases.on_their_way(dispatch.client_id, dispatch.agent_name, dispatch.deployment)
    on_their_way, at_most = await services.ledger.run(step)
    free_slots = slots_for(dispatch, servers)
    return max(0, (free_slots if at_most is None else min(free_slots, at_most)) - on_their_way)
