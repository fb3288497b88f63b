"""Which records need somebody to look at them now?

Beat has this asked twice a second; a worker asks it when beat has fallen silent. It looks after
what got lost: wake-ups, workers, agents.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kombu.exceptions import OperationalError

from dispatcher import heartbeat, leases, ledger, reports
from dispatcher.decisions import can_take, look_again_in_s, time_is_up
from dispatcher.errors import LedgerUnavailable
from dispatcher.models import IN_FLIGHT, UNSENT, Dispatch, State
from dispatcher.outcomes import end_in_time, log_fields
from dispatcher.runtime import Services
from dispatcher.waking import (
    wake_clearing,
    wake_dispatch,
    wake_supervision,
    wake_verification,
)

logger = logging.getLogger(__name__)

# How long a record that was woken is left alone before it is woken again.
PUSH_S: Final = 2.0
_CANDIDATES: Final = 100
# How often a worker looks whether beat is at work.
STAND_IN_S: Final = 0.5


@dataclass(frozen=True, kw_only=True)
class WakeUp:
    """One dispatch that somebody must look at, and in which way."""

    dispatch: Dispatch

    def publish(self) -> None:
        """Publish it. Raises kombu's `OperationalError` without Redis."""
        dispatch = self.dispatch
        if dispatch.clearing:
            wake_clearing(dispatch.dispatch_id, dispatch.room_name)
        elif dispatch.state is State.JOINED:
            wake_supervision(dispatch.dispatch_id, dispatch.room_name)
        elif dispatch.state in IN_FLIGHT - {State.DISPATCHING}:
            wake_verification(dispatch.dispatch_id, dispatch.room_name)
        else:
            wake_dispatch(dispatch.dispatch_id, dispatch.room_name)


def publish_all(wake_ups: Iterable[WakeUp]) -> None:
    """Publish each. Raises kombu's `OperationalError` without Redis."""
    for wake_up in wake_ups:
        wake_up.publish()


async def sweep(services: Services) -> list[WakeUp]:
    """Who is to be woken: records that are due, and joined ones whose agent has fallen silent.

    A long queue is not made longer: what waits there is woken by its own message. What has run out
    of time is ended here, whatever waits in the queue.

    Raises:
        LedgerUnavailable: Redis did not answer.
    """
    limit = services.settings.sweep_limit
    due = await services.ledger.run(ledger.claim_due(limit=limit, push_s=PUSH_S))
    silent = await services.ledger.run(leases.claim_ended(limit=limit, push_s=PUSH_S))
    backlog = await services.ledger.run(reports.backlog())
    wake_ups = []
    for dispatch_id in (*due, *silent):
        dispatch = await _read_or_park(services, dispatch_id)
        if dispatch is None or (dispatch.terminal and not dispatch.clearing):
            continue
        if dispatch.state in UNSENT and time_is_up(dispatch):
            await end_in_time(services, dispatch)
        elif dispatch.state not in UNSENT or backlog < limit:
            # An agent that reports nothing is looked at every few seconds: no news.
            routine = dispatch.state is State.JOINED and services.unfenced(dispatch.agent_name)
            logger.log(
                logging.DEBUG if routine else logging.INFO,
                "woken by the sweeper",
                extra=log_fields(dispatch, state=str(dispatch.state)),
            )
            wake_ups.append(WakeUp(dispatch=dispatch))
    return wake_ups


async def _read_or_park(services: Services, dispatch_id: str) -> Dispatch | None:
    """The record; one that cannot be read is parked, or it would be woken for ever."""
    try:
        dispatch = await services.ledger.run(ledger.read(dispatch_id))
    except LedgerUnavailable:
        raise
    except Exception as error:
        logger.exception("parked: this record cannot be read", extra={"dispatch_id": dispatch_id})
        await services.ledger.run(reports.park(dispatch_id, f"{type(error).__name__}: {error}"))
        return None
    if dispatch is None:
        await services.ledger.run(reports.forget(dispatch_id))
    return dispatch


async def waiting_for(services: Services) -> list[WakeUp]:
    """The waiting dispatches to wake now that agent servers have reported free slots.

    Each client's oldest first, the clients in turn, and no more than there are free slots.
    """
    servers = await services.ledger.run(reports.agent_servers())
    free = sum(server.free_slots for server in servers)
    # More than there is room for: some of them wait for agents that nobody has reported.
    ids = await services.ledger.run(leases.pick_waiting(limit=free + _CANDIDATES, push_s=PUSH_S))
    wake_ups: list[WakeUp] = []
    for dispatch_id in ids:
        dispatch = await _read_or_park(services, dispatch_id)
        if dispatch is None:
            continue
        if len(wake_ups) < free and can_take(dispatch, servers):
            wake_ups.append(WakeUp(dispatch=dispatch))
        else:
            pause_s = look_again_in_s(dispatch, services.settings.wait_s)
            await services.ledger.run(ledger.defer(dispatch_id, due_in_s=pause_s))
    return wake_ups


async def stand_in_for_beat(services: Services) -> None:
    """Sweep from a worker, saying so, for as long as nobody else does (beat has died or hangs)."""
    while True:
        await asyncio.sleep(STAND_IN_S)
        try:
            if heartbeat.SWEEPER in await services.ledger.run(reports.alive()):
                continue
            logger.error("beat is silent: sweeping from a worker; start beat again")
            wake_ups = await sweep(services)
            await asyncio.to_thread(publish_all, wake_ups)
        except (LedgerUnavailable, OperationalError) as error:
            logger.warning("cannot sweep", extra={"error": str(error)})
