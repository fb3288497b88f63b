"""Fill a ledger with many sessions, by the steps that make real ones."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import redis

from dispatcher.domain.models import AgentServerReport, DispatchRef
from dispatcher.domain.state_machine import (
    ACCEPTED,
    DISPATCH_CREATED,
    DISPATCH_STARTED,
    FAILED,
    JOINED,
    ROOM_OVER,
    WAIT,
)
from dispatcher.ledger import celery_messages, dispatches, reports
from dispatcher.ledger.advance import Advance, Provided, Times
from dispatcher.ledger.celery_messages import Template
from dispatcher.ledger.scripts import script
from dispatcher.ledger.step import Step
from tests.support.values import AGENT_NAME, a_server, new_dispatch

BATCH = 500


@dataclass(frozen=True, kw_only=True)
class Told:
    """A session to write, and its course: `ends_as` is a state's name."""

    number: int
    ends_as: str
    client_id: str = "acme"
    reason: str = "no_capacity"

    @property
    def dispatch_id(self) -> str:
        return f"dsp_{self.number:06d}"

    @property
    def ref(self) -> DispatchRef:
        return DispatchRef(
            dispatch_id=self.dispatch_id,
            client_id=self.client_id,
            room_name=f"lesson-{self.number}",
            agent_name=AGENT_NAME,
            generation=1,
        )


def steps(told: Told) -> Iterator[Step[object]]:
    """Yield the steps that make the session, in order."""
    ref = told.ref
    new = new_dispatch(
        told.dispatch_id,
        client_id=told.client_id,
        room_name=ref.room_name,
        agent_metadata="nobody's business",
    )
    yield dispatches.create(new, due_in_s=600, detail={"by": "http"})
    if told.ends_as == "queued":
        return
    message = "every agent server for the agent is full"
    reason = {"failure_reason": told.reason, "failure_message": message}
    detail = {"reason": told.reason, "message": message}
    if told.ends_as in ("waiting", "failed"):
        given_up = {"outcome": "given_up", "reason": told.reason}
        yield dispatches.advance(
            Advance(ref, WAIT, due_in_s=600, fields=reason, attempt=given_up, detail=detail)
        )
    if told.ends_as == "failed":
        failed = {"outcome": "failed", "reason": told.reason}
        yield dispatches.advance(
            Advance(
                ref,
                FAILED,
                fields=reason,
                attempt=failed,
                detail=detail,
                provided=Provided(any_generation=True),
            )
        )
    if told.ends_as in ("joined", "ended"):
        took_ms = 200 + random.Random(told.number).randrange(900)
        yield dispatches.advance(Advance(ref, DISPATCH_STARTED, due_in_s=600))
        created = {"livekit_dispatch_id": f"AD_{told.number}", "tries": "1"}
        yield dispatches.advance(
            Advance(
                ref, DISPATCH_CREATED, due_in_s=600, fields=created, attempt=created, detail=created
            )
        )
        job = {"job_id": f"AJ_{told.number}", "agent_server_id": "server-1"}
        yield dispatches.advance(
            Advance(
                ref,
                ACCEPTED,
                offered_ago_s=0.0,
                due_in_s=600,
                fields=job,
                detail=job | {"reason": "claimed"},
            )
        )
        joined = {"agent_identity": f"agent-{told.number}", "time_to_join_ms": str(took_ms)}
        yield dispatches.advance(
            Advance(
                ref,
                JOINED,
                fields=joined | {"joined_at_ms": "1700000000000"},
                attempt={"outcome": "joined"},
                detail=joined,
                times=Times(lease_s=3600),
            )
        )
    if told.ends_as == "ended":
        yield dispatches.advance(
            Advance(ref, ROOM_OVER, detail={"reason": "room_over"}, times=Times(retention_s=86_400))
        )


def run_steps(raw: redis.Redis, wanted: Iterable[Step[object]]) -> None:
    """Carry out the steps, many in one pipeline."""
    pipe = raw.pipeline(transaction=False)
    shas: dict[str, str] = {}
    for step in wanted:
        if step.script_name not in shas:
            shas[step.script_name] = raw.script_load(script(step.script_name))
        pipe.evalsha(shas[step.script_name], len(step.keys), *step.keys, *step.args)
        if len(pipe) >= BATCH:
            pipe.execute()
    pipe.execute()


def keep_templates(raw: redis.Redis, templates: Iterable[Template]) -> None:
    """Keep the templates of Celery's messages in Redis, as a running worker does."""
    run_steps(raw, [celery_messages.keep(templates, replace=True)])


def fill(raw: redis.Redis, sessions: Iterable[Told]) -> None:
    """Write all of them."""
    run_steps(raw, (step for told in sessions for step in steps(told)))


def report_server(raw: redis.Redis, **changes: object) -> AgentServerReport:
    """Write the report of an agent server, valid for ten minutes."""
    report = a_server(**changes)
    run_steps(raw, [reports.report_agent_server(report, ttl_s=600)])
    return report
