"""Select the waiting dispatches that the agent servers' free slots are for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dispatcher.domain.agent_servers import can_take, slots_for
from dispatcher.domain.models import AgentServerReport, Dispatch
from dispatcher.domain.timing import look_again_in_s
from dispatcher.ledger import dispatches, leases, reports
from dispatcher.ledger.guarding import Work
from dispatcher.lifecycle.services import Services
from dispatcher.lifecycle.sweeping import PUSH_S, read_or_park

_CANDIDATES: Final = 100


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
    room: dict[tuple[str, str, str], int] = {}
    wake_ups: list[Dispatch] = []
    for dispatch_id in ids:
        async with services.guard.one(Work.WAKE_FOR_CAPACITY, of=dispatch_id):
            dispatch = await read_or_park(services, dispatch_id)
            if dispatch is None:
                continue
            whose = dispatch.client_id, dispatch.agent_name, dispatch.deployment
            if whose not in room:
                room[whose] = await _room(services, dispatch, servers)
            if room[whose] > 0 and len(wake_ups) < free and can_take(dispatch, servers):
                room[whose] -= 1
                wake_ups.append(dispatch)
            else:
                pause_s = look_again_in_s(dispatch, services.settings.wait_s)
                await services.ledger.run(dispatches.defer(dispatch_id, due_in_s=pause_s))
    return wake_ups


async def _room(
    services: Services, dispatch: Dispatch, servers: Sequence[AgentServerReport]
) -> int:
    """Return how many more dispatches of the same client and agent may be sent now."""
    step = leases.on_their_way(dispatch.client_id, dispatch.agent_name, dispatch.deployment)
    on_their_way, at_most = await services.ledger.run(step)
    free_slots = slots_for(dispatch, servers)
    return max(0, (free_slots if at_most is None else min(free_slots, at_most)) - on_their_way)
