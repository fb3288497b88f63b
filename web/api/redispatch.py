"""Ledger steps of the redispatch view: a new attempt for an ended or a joined dispatch."""

from __future__ import annotations

from typing import Final

from dispatcher.clients.models import Client
from dispatcher.domain.models import Dispatch, Limits, State
from dispatcher.domain.quotas import Admission
from dispatcher.domain.state_machine import REDISPATCH, REDISPATCH_REQUESTED
from dispatcher.errors import LedgerUnavailable, TooLate
from dispatcher.ledger import celery_messages, dispatches
from dispatcher.ledger.advance import Advance, Provided, Times
from dispatcher.ledger.dispatches import Advanced
from dispatcher.ledger.step import Step
from web.contract.problems import Problem, too_many
from web.services import Services

# What has ended is sent again at the earliest so long after it was asked for last: a client that
# cancels and sends again in a loop would keep workers, LiveKit and agent servers busy for nobody.
AGAIN_MS: Final = 1000


def admission(here: Services, limits: Limits) -> Admission:
    """Return the limits that a request of a client has to pass."""
    return Admission(
        limits=limits,
        paced=len(here.clients.clients) > 1,
        max_backlog=here.common.max_backlog,
    )


def change(here: Services, step: Step[Advanced]) -> Advanced:
    """Carry out a change of a record for a caller that waits for its result.

    Raises:
        LedgerUnavailable: Redis did not answer, carried it out too late for the caller, or has no
            message that would tell a worker.
    """
    done = here.ledger.run(step)
    if done.outcome == "late":
        raise TooLate
    if done.outcome == "untold":
        raise LedgerUnavailable("Redis has just been emptied, and no worker can be told")
    return done


def start_again(here: Services, client: Client, dispatch: Dispatch) -> None:
    """Start an ended dispatch anew; of a joined one, have a worker look whether its agent is there.

    Raises:
        Problem: 409, another serves its room, or it has changed; 429, it was asked for just now.
        LimitReached: its client has used up what it may ask for.
        Overloaded: too many sessions of all clients are on their way.
        LedgerUnavailable: Redis did not answer in time.
    """
    ids = dispatch.dispatch_id, dispatch.room_name
    joined = dispatch.state is State.JOINED
    provided = Provided(
        admission=admission(here, client.limits),
        not_after_ms=dispatch.read_at_ms + here.ledger.in_time_s * 1000,
        told=joined,
    )
    if joined:
        command = Advance(
            dispatch,
            REDISPATCH_REQUESTED,
            detail={"by": "http"},
            provided=provided,
            wake=celery_messages.redispatch_joined(*ids),
        )
    elif dispatch.read_at_ms - dispatch.requested_at_ms < AGAIN_MS:
        raise too_many("it was asked for less than a second ago", retry_after_s=1)
    else:
        command = Advance(
            dispatch,
            REDISPATCH,
            due_in_s=here.common.wake_grace_s,
            detail={"by": "http"},
            times=Times(deadline_in_s=client.deadline_s),
            provided=provided,
            wake=celery_messages.dispatch(*ids),
        )
    done = change(here, dispatches.advance(command))
    if done.outcome == "occupied":
        raise Problem(409, f"its room is served by dispatch {done.job_id} now")
    if not done.applied:
        raise Problem(409, "it has just changed; look again")
