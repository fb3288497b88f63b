"""A dispatch's record, its states, and the other values that all parts of Usher share.

Only values and pure functions: no Redis, no LiveKit, no clock. `domain/state_machine.py` has the
allowed transitions of a record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """State of a dispatch, in the usual order up to `ended`; the others are side branches.

    `offered`: agent servers have refused the job, and none has accepted it. A job that the first
    one accepts goes from `dispatched` to `accepted`.
    """

    QUEUED = "queued"
    DISPATCHING = "dispatching"
    DISPATCHED = "dispatched"
    OFFERED = "offered"
    ACCEPTED = "accepted"
    JOINED = "joined"
    LEAVING = "leaving"  # its agent is still in the room, and no longer answers
    ENDED = "ended"
    WAITING = "waiting"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELEGATED = "delegated"


# A dispatch must end before its deadline. One with less time left than a tick of the sweeper, a
# look at the room and a write take together is ended now.
END_MARGIN_S: Final = 2.0

# How long a participant token can be used to join.
PARTICIPANT_TOKEN_TTL_S: Final = 600

TERMINAL: Final = frozenset({State.ENDED, State.FAILED, State.CANCELLED})
IN_FLIGHT: Final = frozenset({State.DISPATCHING, State.DISPATCHED, State.OFFERED, State.ACCEPTED})
# LiveKit has not been asked for this generation yet, except by a token.
UNSENT: Final = frozenset({State.QUEUED, State.WAITING, State.DELEGATED})
PENDING: Final = UNSENT | IN_FLIGHT


class FailureReason(StrEnum):
    """Why a dispatch ended without an agent; the agent's own reason follows `rejected`."""

    NO_AGENT_ONLINE = "no_agent_online"
    NO_CAPACITY = "no_capacity"
    REJECTED = "rejected"
    LIVEKIT_UNREACHABLE = "livekit_unreachable"
    LIVEKIT_REFUSED = "livekit_refused"
    JOIN_TIMEOUT = "join_timeout"
    AGENT_LOST = "agent_lost"
    AGENT_CRASHED = "agent_crashed"
    NOBODY_CAME = "nobody_came"
    DISPATCHER_UNAVAILABLE = "dispatcher_unavailable"
    CLIENT_REMOVED = "client_removed"
    SUPERSEDED = "superseded"
    CANCELLED_BY_CLIENT = "cancelled_by_client"


@dataclass(frozen=True, kw_only=True)
class Transition:
    """One allowed transition of a record.

    `event` is its name in the timeline. From a state in `moves` the record goes to `to`. In a state
    in `notes` only fields and the event are written: the fact is true, but the record is already
    further on. In any other state nothing is written.
    """

    event: str
    to: State
    moves: frozenset[State] = frozenset()
    notes: frozenset[State] = frozenset()
    new_generation: bool = False
    anew: bool = False  # the dispatch starts afresh: its history counts no longer


# The placement of an attempt that Usher itself hands to an agent server (`USHER_PLACEMENT`).
DIRECT: Final = "direct"

# The outcome of an attempt that LiveKit was never asked for: no agent server could take the job.
WAITED: Final = "waited"


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One generation of a dispatch: the LiveKit dispatch made for it, and its outcome."""

    generation: int
    livekit_dispatch_id: str = ""
    placement: str = ""  # DIRECT: handed to an agent server by Usher; else asked of LiveKit
    agent_server_id: str = ""  # to which it was handed
    tries: int = 0
    errors: tuple[str, ...] = ()
    outcome: str = ""
    reason: str = ""

    @property
    def placed(self) -> bool:
        """True when Usher has handed its job to an agent server, and LiveKit knows none."""
        return self.placement == DIRECT


@dataclass(frozen=True, kw_only=True)
class TimelineEvent:
    """One event of a dispatch; `at_ms` is Redis's clock, in ms since the epoch."""

    at_ms: int
    event: str
    generation: int
    detail: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DispatchRef:
    """A reference to one generation of a dispatch."""

    dispatch_id: str
    client_id: str
    room_name: str
    agent_name: str
    generation: int
    deployment: str = ""  # of the agent (LIVEKIT_AGENT_DEPLOYMENT); empty: it has none
    traceparent: str = ""  # W3C trace context to continue; empty without tracing


@dataclass(frozen=True, kw_only=True)
class Dispatch(DispatchRef):
    """The record of one dispatch, as read. Times are ms since the epoch, by Redis's clock."""

    container: str = ""
    agent_metadata: str = field(default="", repr=False)
    state: State
    created_at_ms: int
    requested_at_ms: int
    deadline_at_ms: int
    updated_at_ms: int = 0
    livekit_dispatch_id: str = ""
    job_id: str = ""
    agent_server_id: str = ""
    agent_container: str = ""
    agent_identity: str = ""
    joined_at_ms: int | None = None
    time_to_join_ms: int | None = None
    joined_seen_at_ms: int = 0  # by Redis's clock, where `joined_at_ms` is by LiveKit's
    asked_at_ms: int = 0  # when a caller asked again while an agent was there
    left_by: str = ""  # why it is leaving: "program" or "people_left"
    loss: str = ""  # how its agent ended, as its agent server or its job reported it
    failure_reason: str = ""
    failure_message: str = ""
    first_generation: int = 1  # of the latest request or requested redispatch
    losses: int = 0
    person_seen: bool = False
    unattended: bool = False  # it has lost its agent, and no person has ever joined
    alive_till_ms: int = 0
    look_at_ms: int = 0  # when a worker must look into its room although the agent is alive
    clearing: bool = False  # cancelled; a worker must still check that no agent of it is left
    timeline_dropped: int = 0  # events before the first of `timeline`
    attempts_dropped: int = 0  # attempts before the first of `attempts`
    read_at_ms: int = 0
    attempts: tuple[Attempt, ...] = ()
    timeline: tuple[TimelineEvent, ...] = ()

    @property
    def terminal(self) -> bool:
        """True when the record changes no more without a request."""
        return self.state in TERMINAL

    @property
    def remaining_s(self) -> float:
        """Seconds from the read to its deadline; negative after the deadline."""
        return (self.deadline_at_ms - self.read_at_ms) / 1000

    @property
    def attempt(self) -> Attempt:
        """The attempt of the present generation."""
        for attempt in self.attempts:
            if attempt.generation == self.generation:
                return attempt
        return Attempt(generation=self.generation)


@dataclass(frozen=True, kw_only=True)
class NewDispatch(DispatchRef):
    """What `web` knows of a new request; the ledger adds times and state."""

    generation: int = 1
    container: str
    agent_metadata: str = field(repr=False)
    deadline_ms: int


@dataclass(frozen=True, kw_only=True)
class RememberedDispatch(NewDispatch):
    """What a web process or an agent knows of a dispatch that has no record in Redis.

    `age_ms` counts from the request, `deadline_ms` from now; only an agent knows the rest.
    """

    state: State
    age_ms: int
    job_id: str = ""
    agent_server_id: str = ""
    agent_container: str = ""
    agent_identity: str = ""


@dataclass(frozen=True, kw_only=True)
class AgentServerReport:
    """What an agent server reports about itself every few seconds."""

    agent_server_id: str
    agent_name: str
    container: str
    client_id: str
    slots: int
    used_slots: int
    load: float
    draining: bool
    registered: bool
    # None, of both: as many as it has slots.
    takes: int | None = None  # jobs that its own load report allows just now
    starts: int | None = None  # how many more agents it can have joining at the same time
    cannot_start: bool = False  # it cannot start a process for a job, and refuses every job
    deployment: str = ""  # its LIVEKIT_AGENT_DEPLOYMENT: LiveKit sends it jobs of this one only
    direct: bool = False  # it takes jobs from Usher itself, not only from LiveKit

    @property
    def online(self) -> bool:
        """True when LiveKit can offer it jobs: it is registered there, and able to run them."""
        return self.registered and not self.draining and not self.cannot_start

    def serves(
        self, *, client_id: str, agent_name: str, container: str, deployment: str | None = None
    ) -> bool:
        """Return True when it takes such jobs; `container` "" and `deployment` None mean any.

        LiveKit compares deployments for equality: a job without one reaches no agent server that
        has one (livekit-server 1.13.5, pkg/service/agentservice.go `workerKey`).
        """
        return (
            self.agent_name == agent_name
            and container in ("", self.container)
            and self.client_id in ("", client_id)
            and deployment in (None, self.deployment)
        )

    @property
    def free_slots(self) -> int:
        """Number of jobs that it can still take."""
        if not self.online:
            return 0
        free = max(0, self.slots - self.used_slots)
        return min(left for left in (free, self.takes, self.starts) if left is not None)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of one client; 0 is no limit."""

    requests_per_minute: int = 0  # also the most at once; refilled evenly
    max_sessions: int = 0  # dispatches that have not ended
    bucket: str = ""  # bucket in which its requests count, if not the client's own

    def of_publishable_keys(self) -> Limits:
        """Return the part of these limits that all browsers together may use.

        Their requests count in a bucket of their own, and the last quarter of the sessions is
        reserved for the client's own servers: a publishable key is public.
        """
        kept = self.max_sessions // 4
        return Limits(
            requests_per_minute=self.requests_per_minute,
            max_sessions=self.max_sessions - kept,
            bucket="publishable",
        )


NO_LIMITS: Final = Limits()
