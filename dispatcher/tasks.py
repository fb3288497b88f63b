"""Which Celery tasks are there?

A message is a wake-up, nothing more: "look at this dispatch". Its arguments are the id, and the
room for whoever looks into Flower. Every task may be lost, doubled or late: the ledger decides.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from celery.signals import worker_ready

from dispatcher import dispatching, heartbeat, ledger, redispatching, verification
from dispatcher.celery import app
from dispatcher.errors import UsherError
from dispatcher.heartbeat import SWEEPER
from dispatcher.models import IN_FLIGHT, Dispatch, State
from dispatcher.runtime import runtime
from dispatcher.waking import wake_dispatch, wake_verification

logger = logging.getLogger(__name__)

# How long a due record that was woken is left alone before it is woken again.
SWEEP_PUSH_S: Final = 2.0


@worker_ready.connect
def _start_runtime(sender: Any, **_: Any) -> None:
    # Connections and event loop before the first message, so that it is as quick as any other.
    process = runtime()
    queues = [queue.name for queue in sender.task_consumer.queues]
    process.start(heartbeat.beat(process.services, queues))


@app.task(name="dispatcher.tasks.dispatch_agent", throws=(UsherError,))
def dispatch_agent(dispatch_id: str, room: str) -> str:
    """Bring one dispatch to LiveKit; returns the state of its record."""
    process = runtime()
    return process.run(dispatching.dispatch_agent(process.services, dispatch_id))


@app.task(name="dispatcher.tasks.verify_dispatch", throws=(UsherError,))
def verify_dispatch(dispatch_id: str, room: str) -> str:
    """See the agent of one dispatch in its room; returns the state of its record."""
    process = runtime()
    state = process.run(verification.verify_dispatch(process.services, dispatch_id))
    if state is State.QUEUED:
        wake_dispatch(dispatch_id, room)
    return state


@app.task(name="dispatcher.tasks.redispatch", throws=(UsherError,), ignore_result=False)
def redispatch(dispatch_id: str) -> str:
    """Dispatch again by hand; refuses, saying why, where that would double or disturb an agent.

    `celery -A dispatcher result <task id>` prints the answer.
    """
    process = runtime()
    dispatch = process.run(redispatching.redispatch(process.services, dispatch_id))
    wake_dispatch(dispatch.dispatch_id, dispatch.room_name)
    return f"dispatching {dispatch_id} again, generation {dispatch.generation}"


@app.task(name="dispatcher.tasks.sweep", throws=(UsherError,))
def sweep() -> int:
    """Wake every record whose due time has come; returns how many (beat sends this)."""
    process = runtime()
    services = process.services
    process.run(services.ledger.run(ledger.report_alive(SWEEPER, ttl_s=heartbeat.TTL_S)))
    ids = process.run(
        services.ledger.run(
            ledger.claim_due(limit=services.settings.sweep_limit, push_s=SWEEP_PUSH_S)
        )
    )
    for dispatch_id in ids:
        dispatch = process.run(services.ledger.run(ledger.read(dispatch_id)))
        if dispatch is not None:
            _wake_due(dispatch)
    return len(ids)


def _wake_due(dispatch: Dispatch) -> None:
    logger.info(
        "woken by the sweeper", extra=dispatching.log_fields(dispatch, state=dispatch.state)
    )
    if dispatch.state in IN_FLIGHT - {State.DISPATCHING}:
        wake_verification(dispatch.dispatch_id, dispatch.room_name)
    else:
        wake_dispatch(dispatch.dispatch_id, dispatch.room_name)
