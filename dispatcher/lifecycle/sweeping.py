"""Find the records that are due, and wake workers for them.

Beat sends the sweep twice a second; a worker sweeps when beat has fallen silent. The sweep makes up
for lost wake-ups, workers and agents.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from kombu.exceptions import OperationalError

from dispatcher.domain.failure_reasons import Reason, nothing_new, why_too_late
from dispatcher.domain.models import (
    IN_FLIGHT,
    PENDING,
    UNSENT,
    AgentServerReport,
    Dispatch,
    FailureReason,
    State,
)
from dispatcher.domain.timing import look_again_in_s, time_is_up
from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import celery_messages, dispatches, leases, reports
from dispatcher.ledger.endings import cleared, everybody_left
from dispatcher.ledger.guarding import Work
from dispatcher.ledger.outbox import DueEvent
from dispatcher.lifecycle import verification, webhook_delivery
from dispatcher.lifecycle.outcomes import fail, log_fields
from dispatcher.lifecycle.services import Services
from dispatcher.observability import tracing
from dispatcher.observability.state_changes import span_attributes
from dispatcher.publish import DELIVER_TASK, wake_worker

logger = logging.getLogger(__name__)

# After waking a worker for a record, the sweeper leaves the record alone for so long.
PUSH_S: Final = 2.0
WOKEN: Final = "woken by the sweeper"
# So long before its deadline, the sweeper itself verifies a record on its way for the last time:
# the verify workers may be away.
LAST_LOOK_S: Final = 1.0
# Records that a sweep handles concurrently: many may run out of time at the same moment.
_AT_ONCE: Final = 20
# Beat sends two sweeps a second. A sweep that ends most of the records it has claimed claims more,
# for so long; a message that comes sooner than `PAUSE_S` has waited while no worker was there.
_GOES_ON_S: Final = 0.4
PAUSE_S: Final = 0.25
# How often a worker checks that beat is at work.
STAND_IN_S: Final = 0.5
# Of a client that is no longer configured, an agent that has been silent for so long is lost.
REMOVED_S: Final = 60.0


def publish(due: Dispatch | DueEvent) -> None:
    """Publish the message that wakes a worker for a record, by its state, or for an event."""
    if isinstance(due, DueEvent):
        wake_worker(
            DELIVER_TASK,
            due.dispatch_id,
            due.room_name,
            good_till_ms=due.good_till_ms,
            event_id=due.event_id,
        )
        return
    task, good_till_ms = celery_messages.DISPATCH_TASK, 0
    if due.clearing:
        task = celery_messages.CLEAR_TASK
    elif due.state in (State.JOINED, State.LEAVING):
        # After that the sweeper claims it again, if the lease is still expired.
        task = celery_messages.SUPERVISE_TASK
        good_till_ms = due.read_at_ms + int(PUSH_S * 1000)
    elif due.state in IN_FLIGHT - {State.DISPATCHING}:
        task = celery_messages.VERIFY_TASK
    wake_worker(task, due.dispatch_id, due.room_name, good_till_ms=good_till_ms)


async def publish_all(services: Services, all_due: Iterable[Dispatch | DueEvent]) -> None:
    """Publish each; raise kombu's `OperationalError` without Redis."""
    for due in all_due:
        of = due.event_id if isinstance(due, DueEvent) else due.dispatch_id
        async with services.guard.one(Work.PUBLISH, of=of):
            await asyncio.to_thread(publish, due)


async def sweep_and_wake(services: Services) -> int:
    """Wake workers for all that is due; return for how many. Raises like `publish_all`."""
    found = await sweep_all(services)
    await publish_all(services, found)
    return len(found)


async def sweep_all(services: Services) -> list[Dispatch | DueEvent]:
    """Return all dispatches and webhook events to wake a worker for."""
    found: list[Dispatch | DueEvent] = [*await sweep(services)]
    async with services.guard.one(Work.WEBHOOKS_DUE):
        found += await webhook_delivery.due(services)
    return found


async def sweep(services: Services) -> list[Dispatch]:
    """Return the records to wake a worker for: due ones, and joined ones with a silent agent.

    A long queue is not made longer: the records in it have a message there. A record that waits for
    an agent server costs no message while none has a free slot. A record that has run out of time
    gets its last look here, whatever waits in the queues and whichever workers are away.
    """
    limit = services.settings.sweep_limit
    due = await services.ledger.run(dispatches.claim_due(limit=limit, push_s=PUSH_S))
    silent = await services.ledger.run(leases.claim_ended(limit=limit, push_s=PUSH_S))
    backlog = await services.ledger.run(reports.backlog())
    sight = _Sight(
        servers=await services.ledger.run(reports.agent_servers()),
        alive=await services.ledger.run(reports.alive()),
        long_queue=backlog >= limit,
    )
    loop = asyncio.get_running_loop()
    until = loop.time() + _GOES_ON_S
    wake_ups = await _look_at_each(services, [*due, *silent], sight)
    # Behind a long queue thousands may run out of time together, and each must be ended.
    while sight.ended > limit / 2 and len(due) == limit and loop.time() < until:
        sight.ended = 0
        due = await services.ledger.run(dispatches.claim_due(limit=limit, push_s=PUSH_S))
        wake_ups += await _look_at_each(services, due, sight)
    return wake_ups


@dataclass(kw_only=True)
class _Sight:
    """What one sweep has read about servers and workers, and how many records it has ended."""

    servers: list[AgentServerReport]
    alive: frozenset[str]
    long_queue: bool
    ended: int = 0


async def _look_at_each(
    services: Services, dispatch_ids: Iterable[str], sight: _Sight
) -> list[Dispatch]:
    at_once = asyncio.Semaphore(_AT_ONCE)

    async def look(dispatch_id: str) -> Dispatch | None:
        async with at_once, services.guard.one(Work.SWEEP, of=dispatch_id):
            dispatch = await read_or_park(services, dispatch_id)
            if dispatch is None or (dispatch.terminal and not dispatch.clearing):
                return None
            answers = reports.livekit_part(dispatch.client_id) in sight.alive
            waits = not time_is_up(dispatch) and services.fenced(dispatch)
            if waits and nothing_new(dispatch, sight.servers, livekit_answers=answers):
                pause_s = look_again_in_s(dispatch, services.settings.wait_s)
                await services.ledger.run(dispatches.defer(dispatch_id, due_in_s=pause_s))
                return None
            return await _look_at(services, dispatch, sight)
        return None

    looked_at = await asyncio.gather(*(look(dispatch_id) for dispatch_id in dispatch_ids))
    return [dispatch for dispatch in looked_at if dispatch is not None]


async def _look_at(services: Services, dispatch: Dispatch, sight: _Sight) -> Dispatch | None:
    if not services.clients.has(dispatch.client_id):
        await _without_client(services, dispatch)
        return None
    if dispatch.state in UNSENT and time_is_up(dispatch):
        fenced = services.fenced(dispatch)
        await fail(services, dispatch, why_too_late(dispatch, sight.servers, fenced=fenced))
        sight.ended += 1
        return None
    if dispatch.state in UNSENT and sight.long_queue:
        return None
    if dispatch.state in IN_FLIGHT:
        left_s = dispatch.remaining_s - LAST_LOOK_S
        if left_s <= 0:
            # With no time left a verification only looks, and then ends the record.
            await verification.verify_dispatch(services, dispatch.dispatch_id)
            return None
        if left_s < PUSH_S:
            await services.ledger.run(dispatches.defer(dispatch.dispatch_id, due_in_s=left_s))
    # A look every few seconds at an agent that reports nothing is routine, so no event.
    routine = dispatch.state is State.JOINED and not services.fenced(dispatch)
    if not routine:
        tracing.happened(WOKEN, {}, parent=dispatch.traceparent, about=span_attributes(dispatch))
    logger.log(
        logging.DEBUG if routine else logging.INFO,
        WOKEN,
        extra=log_fields(dispatch, state=str(dispatch.state)),
    )
    return dispatch


async def _without_client(services: Services, dispatch: Dispatch) -> None:
    """End a session whose client was removed, once nothing can be done for it any more.

    Not at once: for a moment a worker may have an older file of clients than the web process.
    """
    gone = f"client {dispatch.client_id!r} is not configured any more"
    last_heard_ms = max(dispatch.alive_till_ms, dispatch.updated_at_ms)
    over = dispatch.read_at_ms - last_heard_ms > REMOVED_S * 1000
    if dispatch.state in PENDING:
        over = time_is_up(dispatch)
    if over and dispatch.clearing:
        await services.ledger.run(cleared(dispatch))
    elif over and dispatch.state is State.LEAVING:
        retention_s = services.common.retention_s
        await services.ledger.run(everybody_left(dispatch, retention_s=retention_s, reason=gone))
    elif over:
        await fail(services, dispatch, Reason(code=FailureReason.CLIENT_REMOVED, message=gone))
    elif dispatch.state in PENDING:
        pause_s = look_again_in_s(dispatch, PUSH_S)
        await services.ledger.run(dispatches.defer(dispatch.dispatch_id, due_in_s=pause_s))


async def read_or_park(services: Services, dispatch_id: str) -> Dispatch | None:
    """Return the record; park one that cannot be read, or workers would be woken for ever."""
    try:
        dispatch = await services.ledger.run(dispatches.read(dispatch_id))
    except LedgerUnavailable:
        raise
    except Exception as error:
        logger.exception("parked: this record cannot be read", extra={"dispatch_id": dispatch_id})
        await services.ledger.run(reports.park(dispatch_id, f"{type(error).__name__}: {error}"))
        return None
    if dispatch is None:
        await services.ledger.run(reports.forget(dispatch_id))
    return dispatch


async def stand_in_for_beat(services: Services) -> None:
    """Sweep from this worker, and log it, for as long as beat sends no sweeps (died or hangs)."""
    silent = False
    while True:
        await asyncio.sleep(STAND_IN_S)
        try:
            async with services.guard.one(Work.STAND_IN_FOR_BEAT):
                if reports.SWEEPER in await services.ledger.run(reports.alive()):
                    if silent:
                        logger.warning("beat sweeps again")
                    silent = False
                    continue
                if not silent:
                    logger.error("beat is silent: sweeping from a worker; start beat again")
                silent = True
                await sweep_and_wake(services)
        except (LedgerUnavailable, OperationalError) as error:
            logger.warning("cannot sweep", extra={"error": str(error)})
