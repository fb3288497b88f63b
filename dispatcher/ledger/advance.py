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
from dispatcher.ledger.placing import Place
from dispatcher.ledger.step import ms


@dataclass(frozen=True, kw_only=True)
class Provided:
    """Preconditions; unless all hold, nothing is written."""

    any_generation: bool = False  # else the record's is the caller's (`stale`)
    not_after_ms: float | None = None  # Redis runs it by then, by the ledger's clock (`late`)
    unless_asked_for_s: float | None = None  # no caller has asked for it since then (`wanted`)
    told: bool = False  # a worker can be sent the message, which alone has the fact (`untold`)
    # Its client's limits. For a client that asks quickly the record is due later, and the sweeper
    # wakes instead of `wake`; where nothing moves that is `too_many_at_once`.
    admission: Admission | None = None


@dataclass(frozen=True, kw_only=True)
class Times:
    """Times of the record, from now on."""

    deadline_in_s: float | None = None  # a new one (for a redispatch on request, or a lost agent)
    deadline_as_before: bool = False  # the same, with the time that the request was given
    # How long the agent counts as alive without a renewal; 0 has a worker look now. None takes the
    # record off the list of leases when it moves.
    lease_s: float | None = None
    retention_s: int = 0  # how long a record that ends here is kept; 0 is for ever


@dataclass(frozen=True)
class Advance:
    """Carry out `transition` on `dispatch`."""

    dispatch: DispatchRef
    transition: Transition
    _: KW_ONLY
    # When the sweeper must look again, at the latest just before the deadline; None takes the
    # record off the due list.
    due_in_s: float | None = None
    wake: Wake | None = None  # message to a worker, sent when the change is in the record
    fields: Mapping[str, str] | None = None  # of the record, beside the state
    attempt: Mapping[str, str] | None = None  # fields of this generation's attempt
    detail: Mapping[str, str] | None = None  # of the event in the timeline
    # LiveKit's offer was so long ago, and stands before the event in the timeline.
    offered_ago_s: float | None = None
    provided: Provided = field(default_factory=Provided)
    times: Times = field(default_factory=Times)
    # Of the agent server; all other counts follow from the change itself. A fact may be reported
    # twice: a repetition with the same `count_once` counts nothing.
    agent_counts: AgentCounts = NOTHING_COUNTED
    count_once: str = ""
    losses: int | None = None  # agents lost in a row, this one included
    inflight: InFlight = NOT_IN_FLIGHT  # effect on the others on their way to the same agent
    place: Place | None = None  # give the job to an agent server, or write nothing (`unplaced`)
    # `due_in_s` and `wake` are for an agent that may be left in the room: they are dropped where
    # LiveKit has never been asked for one. `paced`: its client's come at a pace; the sweeper does
    # the rest.
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
            "place": None if self.place is None else self.place.order(),
            "clears": self.clears,
            "paced": self.paced,
            "agent_counts": dict(self.agent_counts.increments),
            "once": self.count_once or None,
        }
        return json.dumps({name: value for name, value in order.items() if value is not None})


def _ms(time_s: float | None) -> int | None:
    return None if time_s is None else ms(time_s)
