"""Write the outcome of an attempt or of a dispatch, and trace and log the tasks that lead to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from dispatcher.domain.failure_reasons import Reason, why_too_late
from dispatcher.domain.models import AgentServerReport, Dispatch, State, Transition
from dispatcher.domain.state_machine import FAILED
from dispatcher.domain.timing import look_again_in_s
from dispatcher.errors import UnknownDispatch
from dispatcher.ledger import admission, celery_messages, dispatches, reports
from dispatcher.ledger.advance import Advance, Times
from dispatcher.lifecycle.services import Services
from dispatcher.observability import state_changes, tracing


async def read(services: Services, dispatch_id: str) -> Dispatch:
    """Return the record.

    Raises:
        UnknownDispatch: there is none.
    """
    return known(await services.ledger.run(dispatches.read(dispatch_id)), dispatch_id)


def known(dispatch: Dispatch | None, dispatch_id: str) -> Dispatch:
    """Return `dispatch` itself if there is a record.

    Raises:
        UnknownDispatch: there is none.
    """
    if dispatch is None:
        raise UnknownDispatch(
            f"no dispatch {dispatch_id!r}: it never existed or its retention time is over"
        )
    return dispatch


def log_fields(dispatch: Dispatch, **more: object) -> dict[str, object]:
    """Return the fields of a worker's log line about a dispatch."""
    return {**state_changes.log_fields(dispatch), "generation": dispatch.generation, **more}


def traced(task: str, dispatch: Dispatch) -> AbstractContextManager[tracing.Span]:
    """Trace a task as a part of the dispatch's trace; the span is dropped if nothing happens."""
    return tracing.span(
        f"process {task}",
        parent=dispatch.traceparent,
        kind=tracing.SpanKind.CONSUMER,
        attributes={
            **state_changes.span_attributes(dispatch),
            "messaging.system": "celery",
            "messaging.operation.type": "process",
            "messaging.operation.name": "process",
            "messaging.destination.name": task,
        },
        lazy=True,
    )


async def fail(
    services: Services, dispatch: Dispatch, reason: Reason, attempt: Mapping[str, str] | None = None
) -> bool:
    """End the record as `failed`, with the reason; return false if the record has moved on."""
    done = await services.ledger.run(
        dispatches.advance(
            Advance(
                dispatch,
                FAILED,
                fields={"failure_reason": reason.code, "failure_message": reason.message},
                attempt={"outcome": "failed", "reason": reason.code, **(attempt or {})},
                detail={"reason": reason.code, "message": reason.message},
                times=Times(retention_s=services.common.retention_s),
            )
        )
    )
    return done.moved


async def end_in_time(
    services: Services, dispatch: Dispatch, servers: Sequence[AgentServerReport] | None = None
) -> Reason:
    """End a record that has run out of time as `failed`; return the true reason."""
    if servers is None:
        servers = await services.ledger.run(reports.agent_servers())
    reason = why_too_late(dispatch, servers, fenced=services.fenced(dispatch))
    await fail(services, dispatch, reason)
    return reason


async def give_up(
    services: Services,
    dispatch: Dispatch,
    transition: Transition,
    reason: Reason,
    attempt: Mapping[str, str],
    *,
    dropped: bool = False,
) -> bool:
    """End this attempt (`WAIT` or `NEXT_GENERATION`); return false if the record has moved on.

    The same step writes the next generation's message.
    """
    waiting = transition.to is State.WAITING
    wake = None if waiting else celery_messages.dispatch(dispatch.dispatch_id, dispatch.room_name)
    done = await services.ledger.run(
        dispatches.advance(
            Advance(
                dispatch,
                transition,
                due_in_s=look_again_in_s(dispatch, services.settings.wait_s)
                if waiting
                else services.common.wake_grace_s,
                fields={"failure_reason": reason.code, "failure_message": reason.message}
                if waiting
                else None,
                attempt={"outcome": "given_up", "reason": reason.code, **attempt},
                detail={"reason": reason.code, "message": reason.message},
                inflight=admission.DROPPED if dropped else admission.NOT_IN_FLIGHT,
                wake=wake,
            )
        )
    )
    return done.moved
