"""How does an attempt end, how does a dispatch, and what does everybody log about it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from dispatcher import inflight, ledger, messages, reports, tracing, transitions
from dispatcher.advance import Advance, Times
from dispatcher.errors import UnknownDispatch
from dispatcher.failure_reasons import Reason, why_too_late
from dispatcher.models import AgentServerReport, Dispatch, State, Transition
from dispatcher.runtime import Services
from dispatcher.state_machine import FAILED
from dispatcher.timing import look_again_in_s


async def read(services: Services, dispatch_id: str) -> Dispatch:
    """The record.

    Raises:
        UnknownDispatch: there is none.
    """
    return known(await services.ledger.run(ledger.read(dispatch_id)), dispatch_id)


def known(dispatch: Dispatch | None, dispatch_id: str) -> Dispatch:
    """The record that was looked for.

    Raises:
        UnknownDispatch: there is none.
    """
    if dispatch is None:
        raise UnknownDispatch(
            f"no dispatch {dispatch_id!r}: it never existed or its retention time is over"
        )
    return dispatch


def log_fields(dispatch: Dispatch, **more: object) -> dict[str, object]:
    """What a worker's log line about a dispatch carries."""
    return {**transitions.log_fields(dispatch), "generation": dispatch.generation, **more}


def traced(task: str, dispatch: Dispatch) -> AbstractContextManager[tracing.Span]:
    """What a task does for a dispatch, as a part of its trace; nothing where it does nothing."""
    return tracing.span(
        f"process {task}",
        parent=dispatch.traceparent,
        kind="consumer",
        attributes={
            **transitions.span_attributes(dispatch),
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
    """End the record as `failed`, with its reason; false when the record has moved on."""
    done = await services.ledger.run(
        ledger.advance(
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
    """End a record that has run out of time as `failed`; returns its true reason."""
    if servers is None:
        servers = await services.ledger.run(reports.agent_servers())
    fenced = not services.unfenced(dispatch.agent_name)
    reason = why_too_late(dispatch, servers, fenced=fenced)
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
    """End this attempt (`WAIT` or `NEXT_GENERATION`); false when the record has moved on.

    The next generation's message is written with it.
    """
    waiting = transition.to is State.WAITING
    wake = None if waiting else messages.dispatch(dispatch.dispatch_id, dispatch.room_name)
    done = await services.ledger.run(
        ledger.advance(
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
                inflight=inflight.DROPPED if dropped else inflight.NOT_IN_FLIGHT,
                wake=wake,
            )
        )
    )
    return done.moved
