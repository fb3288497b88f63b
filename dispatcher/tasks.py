"""The Celery tasks.

A message is a wake-up, nothing more: "look at this dispatch". Its arguments are the dispatch id
and the room, both by name, because Flower's search finds a session by either. Every task may be
lost, doubled or late: the ledger decides.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from celery.exceptions import WorkerShutdown
from celery.signals import heartbeat_sent, worker_ready

from dispatcher import gc_freeze
from dispatcher.celery import app
from dispatcher.errors import UsherError
from dispatcher.ledger import keys, outbox, reports
from dispatcher.ledger.celery_messages import DISPATCH_TASK, VERIFY_TASK
from dispatcher.ledger.guarding import Work
from dispatcher.ledger.parts import SWEEPER, TTL_S
from dispatcher.lifecycle import (
    cleanup,
    dispatching,
    redispatching,
    supervision,
    sweeping,
    verification,
    webhook_delivery,
)
from dispatcher.observability import tracing
from dispatcher.observability.liveness import Pulse
from dispatcher.publish import GOOD_TILL_MS
from dispatcher.worker import capacity_listener, data_loss_monitor, heartbeat
from dispatcher.worker.runtime import runtime

logger = logging.getLogger(__name__)

# Connected before the worker's consumer is made, which asks only then whether anybody listens.
_consumer = Pulse()
heartbeat_sent.connect(_consumer.feel, weak=False)


@worker_ready.connect
def _start_or_stop(sender: Any, **_: Any) -> None:
    # Connections and event loop before the first message, so that it is as quick as any other.
    try:
        _start_runtime(sender)
    except Exception as error:
        # Celery would log it and take messages all the same, to fail with each.
        logger.critical("the worker cannot work, and stops", exc_info=error)
        raise WorkerShutdown(1) from None


def _start_runtime(sender: Any) -> None:
    queues = [queue.name for queue in sender.task_consumer.queues]
    tracing.start("usher-dispatch" if keys.DISPATCH_QUEUE in queues else "usher-verify")
    process = runtime()
    process.start(Work.HEARTBEAT, partial(heartbeat.beat, queues=queues, pulse=_consumer))
    if keys.DISPATCH_QUEUE in queues:
        process.start(Work.WAKE_FOR_CAPACITY, capacity_listener.listen)
        process.start(Work.LOOK_FOR_DATA_LOSS, data_loss_monitor.watch)
        process.start(Work.STAND_IN_FOR_BEAT, sweeping.stand_in_for_beat)
    gc_freeze.keep()


@app.task(name=DISPATCH_TASK, throws=(UsherError,))
def dispatch_agent(dispatch_id: str, room: str) -> str:
    """Bring one dispatch to LiveKit; returns the state of its record.

    Its verification is chained to it by the ledger: "LiveKit has it" and the message for
    `verify_dispatch` are one step.
    """
    process = runtime()
    return process.run(dispatching.dispatch_agent(process.services, dispatch_id))


@app.task(name=VERIFY_TASK, throws=(UsherError,))
def verify_dispatch(dispatch_id: str, room: str) -> str:
    """See the agent of one dispatch in its room; returns the state of its record."""
    process = runtime()
    return process.run(verification.verify_dispatch(process.services, dispatch_id))


@app.task(name="dispatcher.tasks.redispatch", throws=(UsherError,), ignore_result=False)
def redispatch(dispatch_id: str) -> str:
    """Dispatch again by hand; refuses, saying why, where that would double or disturb an agent.

    `celery -A dispatcher result <task id>` prints the answer.
    """
    process = runtime()
    dispatch = process.run(redispatching.redispatch(process.services, dispatch_id))
    return f"dispatching {dispatch_id} again, generation {dispatch.generation}"


@app.task(name="dispatcher.tasks.redispatch_joined", throws=(UsherError,))
def redispatch_joined(dispatch_id: str, room: str) -> str:
    """Dispatch again by HTTP what is joined, unless its agent is there; its timeline says which."""
    process = runtime()
    return process.run(redispatching.redispatch_joined(process.services, dispatch_id))


@app.task(name="dispatcher.tasks.clear_away", throws=(UsherError,))
def clear_away(dispatch_id: str, room: str) -> str:
    """Take the agent of a cancelled dispatch out of its room; returns its record's state."""
    process = runtime()
    return process.run(cleanup.clear_away(process.services, dispatch_id))


def _good_till_ms(task: Any) -> int:
    """Till when the message of the running task is good; 0: for ever."""
    return int(task.request.get(GOOD_TILL_MS) or 0)


@app.task(name="dispatcher.tasks.supervise", throws=(UsherError,), bind=True)
def supervise(self: Any, dispatch_id: str, room: str) -> str:
    """Look after a joined dispatch whose agent has fallen silent; returns its record's state."""
    process = runtime()
    return process.run(
        supervision.supervise(process.services, dispatch_id, good_till_ms=_good_till_ms(self))
    )


@app.task(name="dispatcher.tasks.deliver_webhook", throws=(UsherError,), bind=True)
def deliver_webhook(self: Any, event_id: str, dispatch_id: str = "", room: str = "") -> str:
    """Deliver one event to its client's own server; returns what came of it."""
    process = runtime()
    return process.run(
        webhook_delivery.deliver(process.services, event_id, good_till_ms=_good_till_ms(self))
    )


@app.task(name="dispatcher.tasks.dead_webhooks", throws=(UsherError,), ignore_result=False)
def dead_webhooks(client_id: str) -> list[str]:
    """The events of one client that were given up, one a line, the latest first."""
    process = runtime()
    return [
        f"{event.event_id} {event.event_type} {event.dispatch_id} tries={event.tries}: "
        f"{event.error}"
        for event in process.run(process.services.ledger.run(outbox.dead(client_id)))
    ]


@app.task(name="dispatcher.tasks.resend_webhooks", throws=(UsherError,), ignore_result=False)
def resend_webhooks(client_id: str, event_id: str = "") -> str:
    """Have a dead event, or every dead one of the client, delivered again, with the id it had."""
    process = runtime()
    count = process.run(process.services.ledger.run(outbox.resend(client_id, event_id)))
    return f"{count} events are due again"


# Twice a second, so no events: Flower's history is for sessions.
@app.task(name="dispatcher.tasks.sweep", throws=(UsherError,), send_events=False)
def sweep() -> int:
    """Wake every record that somebody must look at; returns how many (beat sends this)."""
    process = runtime()
    store = process.services.ledger
    begin = reports.begin_sweep(SWEEPER, ttl_s=TTL_S, pause_s=sweeping.PAUSE_S)
    if not process.run(store.run(begin)):
        return 0
    wake_ups = process.run(sweeping.sweep_all(process.services))
    process.run(sweeping.publish_all(process.services, wake_ups))
    return len(wake_ups)
