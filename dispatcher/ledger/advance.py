"""The command that `dispatches.advance` carries out: a transition and all that goes with it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

from dispatcher.domain.metrics import NOTHING_COUNTED, AgentCounts
from dispatcher.domain.models import DispatchRef, Transition
from dispatcher.domain.quotas import Admission
from dispatcher.ledger import keys
from dispatcher.ledger.admission import NOT_IN_FLIGHT, InFlight
from dispatcher.ledger.celery_messages import Wake
from dispatcher.ledger.step import ms


@dataclass(frozen=True, kw_only=True)
class Provided:
    """Preconditions; unless all hold, nothing is written.

    Attributes:
        any_generation: skip the check that the record's generation is the caller's.
        not_after_ms: Redis runs the step by then, by the ledger's clock (else `late`).
        unless_asked_for_s: no caller has asked for this session within so many seconds (`wanted`).
        told: a worker can be sent its message (`untold`); for facts that only the message carries.
        admission: its client's limits. For a client that asks quickly the record is due later, and
            the sweeper wakes instead of `wake`; where nothing moves that is `too_many_requests`.
    """

    any_generation: bool = False
    not_after_ms: float | None = None
    unless_asked_for_s: float | None = None
    told: bool = False
    admission: Admission | None = None


@dataclass(frozen=True, kw_only=True)
class Times:
    """Times of the record, from now on.

    Attributes:
        deadline_in_s: a new deadline (for a redispatch on request, or a lost agent).
        deadline_as_before: the same, with the time that the request was given.
        lease_s: how long the agent counts as alive without a renewal; 0 has a worker look now. None
            takes the record off the list of leases when it moves.
        retention_s: how long a record that ends here is kept; 0 is for ever.
    """

    deadline_in_s: float | None = None
    deadline_as_before: bool = False
    lease_s: float | None = None
    retention_s: int = 0


@dataclass(frozen=True)
class Advance:
    """Carry out `transition` on `dispatch`.

    Attributes:
        due_in_s: when the sweeper must look again, at the latest just before the deadline; None
            takes the record off the due list.
        wake: message to a worker, sent when the change is in the record.
        fields: of the record, beside the state.
        attempt: fields of this generation's attempt.
        detail: of the event in the timeline.
        offered_ago_s: the event comes with LiveKit's offer, which was so long ago and stands before
            it in the timeline.
        agent_counts: of the agent server; all other counts follow from the change itself.
        count_once: a repetition with the same text counts nothing: a fact may be reported twice.
        losses: agents that this dispatch has lost in a row, this one included.
        inflight: effect on the others on their way to the same agent (`ledger/admission.py`).
        clears: `due_in_s` and `wake` are for an agent that may be left in the room; they are
            dropped where LiveKit has never been asked for one.
        paced: with `clears`, the wake-ups of its client come at a pace; the sweeper does the rest.
    """

    dispatch: DispatchRef
    transition: Transition
    _: KW_ONLY
    due_in_s: float | None = None
    wake: Wake | None = None
    fields: Mapping[str, str] | None = None
    attempt: Mapping[str, str] | None = None
    detail: Mapping[str, str] | None = None
    offered_ago_s: float | None = None
    provided: Provided = field(default_factory=Provided)
    times: Times = field(default_factory=Times)
    agent_counts: AgentCounts = NOTHING_COUNTED
    count_once: str = ""
    losses: int | None = None
    inflight: InFlight = NOT_IN_FLIGHT
    clears: bool = False
    paced: bool = False

    @property
    def events(self) -> list[str]:
        """Names of the timeline's new events, in order."""
        offer = [] if self.offered_ago_s is None else ["offered"]
        return [*offer, self.transition.event]

    def keys(self) -> tuple[str, ...]:
        """Return the keys in the order in which `lua/advance.lua` names them."""
        ref, admission = self.dispatch, self.provided.admission
        agent = (ref.client_id, ref.agent_name, ref.deployment)
        return (
            keys.record(ref.dispatch_id),
            keys.attempts(ref.dispatch_id),
            keys.timeline(ref.dispatch_id),
            keys.DUE,
            keys.live(ref.client_id, ref.agent_name, ref.room_name),
            keys.dispatch_metrics(ref.client_id),
            keys.LEASES,
            keys.WAITING,
            keys.open_sessions(ref.client_id),
            keys.inflight(*agent),
            keys.window(*agent),
            keys.AGENT_SERVERS,
            keys.NOTIFIED,
            keys.outbox(ref.client_id),
            self.agent_counts.key,
            keys.AGENT_METRICS_INDEX,
            keys.failed_sessions(ref.client_id),
            self.wake.queue if self.wake else keys.DISPATCH_QUEUE,
            keys.rate(ref.client_id, admission.limits.bucket if admission else ""),
            keys.clearing_pace(ref.client_id) if self.clears else keys.pace(ref.client_id),
            keys.BUSY,
        )

    def order(self) -> str:
        """Return the JSON that `lua/advance.lua` reads, without what is None."""
        ref, transition, provided, times = self.dispatch, self.transition, self.provided, self.times
        order: dict[str, Any] = {
            "id": ref.dispatch_id,
            "client": ref.client_id,
            # Preconditions
            "moves": dict.fromkeys(transition.moves, True),
            "notes": dict.fromkeys(transition.notes, True),
            "generation": None if provided.any_generation else ref.generation,
            "not_after_ms": provided.not_after_ms,
            "unless_asked_ms": _ms(provided.unless_asked_for_s),
            "only_if_told": provided.told,
            "limits": None if provided.admission is None else provided.admission.order(),
            # The change
            "to": transition.to,
            "new_generation": transition.new_generation,
            "anew": transition.anew,
            "fields": dict(self.fields or {}),
            "attempt": dict(self.attempt or {}),
            "events": self.events,
            "detail": json.dumps(dict(self.detail or {})),
            "losses": self.losses,
            "offered_ago_ms": _ms(self.offered_ago_s),
            # Times
            "due_in_ms": _ms(self.due_in_s),
            "revive": times.deadline_in_s is not None or times.deadline_as_before,
            "deadline_in_ms": _ms(times.deadline_in_s),
            "deadline_as_before": times.deadline_as_before,
            "lease_ms": _ms(times.lease_s),
            "retention_s": times.retention_s,
            # What goes with it
            **self.inflight.order(ref.agent_name),
            "wake": None if self.wake is None else vars(self.wake),
            "clears": self.clears,
            "paced": self.paced,
            "agent_counts": dict(self.agent_counts.increments),
            "once": self.count_once or None,
        }
        return json.dumps({name: value for name, value in order.items() if value is not None})


def _ms(time_s: float | None) -> int | None:
    return None if time_s is None else ms(time_s)
