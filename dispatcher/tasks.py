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

from dispatcher import start_up
from dispatcher.celery import app
from dispatcher.errors import UsherError
from dispatcher.ledger import keys, outbox, reports
from dispatcher.ledger.celery_messages import DISPATCH_TASK, VERIFY_TASK
from dispatcher.ledger.guarding import Work
from dispatcher.lifecycle import (
    cleanup,
    dispatching,
    redispatching,
    supervision,
    sweeping,
    verification,
    wake_waiting,
    webhook_delivery,
)
from dispatcher.observability import tracing
from dispatcher.observability.liveness import Pulse
from dispatcher.publish import GOOD_TILL_MS
from dispatcher.worker import data_loss_monitor, heartbeat
from dispatcher.worker.runtime import runtime

logger = logging.getLogger(__name__)

# Connected before the worker's consumer is made: Celery checks only then for receivers.
_consumer = Pulse()
heartbeat_sent.connect(_consumer.feel, weak=False)


@worker_ready.connect
def _start_or_stop(sender: Any, **_: Any) -> None:
    # Opens connections and event loop before the first message, so that the first is not slower.
    try:
        _start_runtime(sender)
    except Exception as error:
        # Celery would log the error, take messages all the same, and fail with each.
        logger.critical("the worker cannot work, and stops", exc_info=error)
        raise WorkerShutdown(1) from None


def _start_runtime(sender: Any) -> None:
    queues = [queue.name for queue in sender.task_consumer.queues]
    tracing.start("usher-dispatch" if keys.DISPATCH_QUEUE in queues else "usher-verify")
    process = runtime()
    process.start(Work.HEARTBEAT, partial(heartbeat.beat, queues=queues, pulse=_consumer))
    if keys.DISPATCH_QUEUE in queues:
        process.start(Work.WAKE_FOR_CAPACITY, wake_waiting.listen)
        process.start(Work.LOOK_FOR_DATA_LOSS, data_loss_monitor.watch)
        process.start(Work.STAND_IN_FOR_BEAT, sweeping.stand_in_for_beat)
    start_up.freeze()


@app.task(name=DISPATCH_TASK, throws=(UsherError,))
def dispatch_agent(dispatch_id: str, room: str) -> str:
    """Request one dispatch from LiveKit; return the state of its record.

    The ledger chains the verification to it: it writes the state `dispatched` and the message for
    `verify_dispatch` in one step.
    """
    return runtime().run(dispatching.dispatch_agent, dispatch_id)


@app.task(name=VERIFY_TASK, throws=(UsherError,))
def verify_dispatch(dispatch_id: str, room: str) -> str:
    """Verify that the agent of one dispatch is in its room; return the state of its record."""
    return runtime().run(verification.verify_dispatch, dispatch_id)


@app.task(name="dispatcher.tasks.redispatch", throws=(UsherError,), ignore_result=False)
def redispatch(dispatch_id: str) -> str:
    """Redispatch by hand; refuse, with the reason, where that would double or disturb an agent.

    `celery -A dispatcher result <task id>` prints the answer.
    """
    dispatch = runtime().run(redispatching.redispatch, dispatch_id)
    return f"dispatching {dispatch_id} again, generation {dispatch.generation}"


@app.task(name="dispatcher.tasks.redispatch_joined", throws=(UsherError,))
def redispatch_joined(dispatch_id: str, room: str) -> str:
    """Redispatch a joined dispatch on an HTTP request, unless its agent is there (its timeline)."""
    return runtime().run(redispatching.redispatch_joined, dispatch_id)


@app.task(name="dispatcher.tasks.clear_away", throws=(UsherError,))
def clear_away(dispatch_id: str, room: str) -> str:
    """Remove the agent of a cancelled dispatch from its room; return the state of its record."""
    return runtime().run(cleanup.clear_away, dispatch_id)


def _good_till_ms(task: Any) -> int:
    """Return the time (ms) until which the running task's message is good; 0: for ever."""
    return int(task.request.get(GOOD_TILL_MS) or 0)


@app.task(name="dispatcher.tasks.supervise", throws=(UsherError,), bind=True)
def supervise(self: Any, dispatch_id: str, room: str) -> str:
    """Supervise a joined dispatch whose agent has fallen silent; return the state of its record."""
    return runtime().run(supervision.supervise, dispatch_id, good_till_ms=_good_till_ms(self))


@app.task(name="dispatcher.tasks.deliver_webhook", throws=(UsherError,), bind=True)
def deliver_webhook(self: Any, event_id: str, dispatch_id: str = "", room: str = "") -> str:
    """Deliver one event to its client's webhook URL; return the outcome."""
    return runtime().run(webhook_delivery.deliver, event_id, good_till_ms=_good_till_ms(self))


@app.task(name="dispatcher.tasks.dead_webhooks", throws=(UsherError,), ignore_result=False)
def dead_webhooks(client_id: str) -> list[str]:
    """Return the dead events of one client, one a line, the latest first."""
    events = runtime().run(lambda services: services.ledger.run(outbox.dead(client_id)))
    return [
        f"{event.event_id} {event.event_type} {event.dispatch_id} tries={event.tries}: "
        f"{event.error}"
        for event in events
    ]


@app.task(name="dispatcher.tasks.resend_webhooks", throws=(UsherError,), ignore_result=False)
def resend_webhooks(client_id: str, event_id: str = "") -> str:
    """Make a dead event, or every dead one of the client, due again, with the same id."""
    step = outbox.resend(client_id, event_id)
    count = runtime().run(lambda services: services.ledger.run(step))
    return f"{count} events are due again"


# No events for a task that runs twice a second: Flower's history is for sessions.
@app.task(name="dispatcher.tasks.sweep", throws=(UsherError,), send_events=False)
def sweep() -> int:
    """Wake workers for every record that is due; return how many (beat sends this)."""
    process = runtime()
    begin = reports.begin_sweep(pause_s=sweeping.PAUSE_S)
    if not process.run(lambda services: services.ledger.run(begin)):
        return 0
    return process.run(sweeping.sweep_and_wake)
