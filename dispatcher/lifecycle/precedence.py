"""Give free slots to sessions with a caller before sessions that no person has ever joined.

A restart of agent servers loses the agents of every session. Sessions whose token was never used
are sent again as well, and would take the last slots from callers who wait.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence

from dispatcher.domain.agent_servers import eligible, slots_for
from dispatcher.domain.failure_reasons import Reason
from dispatcher.domain.models import AgentServerReport, Dispatch, FailureReason
from dispatcher.domain.rooms import RoomView
from dispatcher.domain.timing import STILL_TO_COME_S
from dispatcher.errors import TransientLiveKitError
from dispatcher.ledger import leases
from dispatcher.lifecycle.services import Services


def is_unattended(dispatch: Dispatch, room: RoomView) -> bool:
    """Return whether no person has ever joined this session and no caller asked for it lately."""
    times_ms = [dispatch.created_at_ms, dispatch.asked_at_ms]
    if not dispatch.losses:  # a loss resets `requested_at_ms`, and is no request
        times_ms.append(dispatch.requested_at_ms)
    asked_s = (dispatch.read_at_ms - max(times_ms)) / 1000
    return room.people == 0 and not dispatch.person_seen and asked_s >= STILL_TO_COME_S


def ahead_of(
    dispatch: Dispatch,
    servers: Iterable[AgentServerReport],
    waiting: Mapping[tuple[str, str], int],
) -> int:
    """Count the `waiting` dispatches (by client, container) that want a slot this one could get."""
    able = [server for server in eligible(dispatch, servers) if server.free_slots]
    return sum(
        number
        for (client_id, container), number in waiting.items()
        if any(
            server.serves(client_id=client_id, agent_name=dispatch.agent_name, container=container)
            for server in able
        )
    )


async def why_behind(
    services: Services, dispatch: Dispatch, servers: Sequence[AgentServerReport]
) -> Reason | None:
    """Return why an unattended dispatch waits although slots are free; None if it need not wait.

    Raises:
        PermanentLiveKitError: LiveKit refuses this client.
    """
    if not dispatch.unattended or not services.fenced(dispatch):
        return None
    waiting = await services.ledger.run(leases.waiting_ahead(dispatch.agent_name))
    ahead = ahead_of(dispatch, servers, waiting)
    sent, _ = await services.ledger.run(
        leases.on_their_way(dispatch.client_id, dispatch.agent_name, dispatch.deployment)
    )
    if not ahead or slots_for(dispatch, servers) - sent > ahead:
        return None
    with contextlib.suppress(TransientLiveKitError):
        # A person may be there now: no agent is, that would have reported it.
        if (await services.livekit(dispatch).look(dispatch.room_name)).people:
            return None
    return Reason(
        code=FailureReason.NO_CAPACITY,
        message=f"no person has come to this session yet, and {ahead} session(s) with a caller "
        f"wait for the free slots of agent {dispatch.agent_name!r}; add agent servers or raise "
        "USHER_AGENT_SLOTS",
    )
