"""A dispatch's record, its states, and the other values that all parts of Usher know.

Only values and pure functions: no Redis, no LiveKit, no clock. The allowed changes of a record are
in `domain/state_machine.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a dispatch stands. `queued` to `ended` in this order; the rest beside them."""

    QUEUED = "queued"
    DISPATCHING = "dispatching"
    DISPATCHED = "dispatched"
    OFFERED = "offered"
    ACCEPTED = "accepted"
    JOINED = "joined"
    LEAVING = "leaving"  # its agent is still in the room, and answers no more
    ENDED = "ended"
    WAITING = "waiting"
    FAILED = "failed"
    CANCELLED = "cancelled"
    DELEGATED = "delegated"


# A dispatch must have ended before its deadline, so one with less time left than a tick of the
# sweeper, a look at the room and a write take together is ended now.
END_MARGIN_S: Final = 2.0

# For as long can a participant token be used to join.
PARTICIPANT_TOKEN_TTL_S: Final = 600

TERMINAL: Final = frozenset({State.ENDED, State.FAILED, State.CANCELLED})
IN_FLIGHT: Final = frozenset({State.DISPATCHING, State.DISPATCHED, State.OFFERED, State.ACCEPTED})
# Nobody has asked LiveKit for this generation yet, or LiveKit has been asked by a token.
UNSENT: Final = frozenset({State.QUEUED, State.WAITING, State.DELEGATED})
PENDING: Final = UNSENT | IN_FLIGHT


class FailureReason(StrEnum):
    """Why a dispatch ended without an agent; `rejected` is followed by the agent's own reason."""

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
    """One allowed change of a record.

    `event` is its name in the timeline. In a state of `moves` the record goes to `to`; in a state
    of `notes` only its fields and the event are written (the fact is true, but the record is
    further on already); in any other state nothing happens at all.
    """

    event: str
    moves: frozenset[State]
    to: State
    notes: frozenset[State] = frozenset()
    new_generation: bool = False
    anew: bool = False  # nothing of what the dispatch has been through counts any more


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One generation of a dispatch: LiveKit's dispatch that we stand by, and what came of it."""

    generation: int
    livekit_dispatch_id: str = ""
    tries: int = 0
    errors: tuple[str, ...] = ()
    outcome: str = ""
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class TimelineEvent:
    """Something that happened to a dispatch; `at_ms` is Redis's clock, in ms since the epoch."""

    at_ms: int
    event: str
    generation: int
    detail: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class DispatchRef:
    """Which generation of which dispatch somebody speaks of."""

    dispatch_id: str
    client_id: str
    room_name: str
    agent_name: str
    generation: int
    deployment: str = ""  # of the agent (LIVEKIT_AGENT_DEPLOYMENT); empty: of those without one
    traceparent: str = ""  # where its trace goes on (W3C); empty while nobody traces


@dataclass(frozen=True, kw_only=True)
class Dispatch(DispatchRef):
    """The record of one dispatch, as read. Times are ms since the epoch, of Redis's clock."""

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
    joined_seen_at_ms: int = 0  # as `joined_at_ms`, which is LiveKit's clock
    asked_at_ms: int = 0  # when a caller has asked for it again, while an agent was there
    left_by: str = ""  # whose doing it is that it is leaving: "program", "people_left"
    loss: str = ""  # what its agent server or its job has said of the end of its agent
    failure_reason: str = ""
    failure_message: str = ""
    first_generation: int = 1  # since it was last asked for, by a request or by hand
    losses: int = 0
    person_seen: bool = False
    unattended: bool = False  # it has lost its agent, and no person has ever come to it
    alive_till_ms: int = 0
    look_at_ms: int = 0  # when its room is to be looked into although its agent is alive
    clearing: bool = False  # cancelled, and somebody has to see that no agent of it is left
    timeline_dropped: int = 0  # events before the first of `timeline`
    attempts_dropped: int = 0  # attempts before the first of `attempts`
    read_at_ms: int = 0
    attempts: tuple[Attempt, ...] = ()
    timeline: tuple[TimelineEvent, ...] = ()

    @property
    def terminal(self) -> bool:
        """True when nothing more will happen by itself."""
        return self.state in TERMINAL

    @property
    def remaining_s(self) -> float:
        """Seconds from the moment it was read to its deadline; negative when that has passed."""
        return (self.deadline_at_ms - self.read_at_ms) / 1000

    @property
    def attempt(self) -> Attempt:
        """The attempt of the present generation."""
        for attempt in self.attempts:
            if attempt.generation == self.generation:
                return attempt
        return Attempt(generation=self.generation)


@dataclass(frozen=True, kw_only=True)
class NewDispatch:
    """What `web` knows when it asks for an agent; the ledger adds id, times and state."""

    dispatch_id: str
    client_id: str
    room_name: str
    agent_name: str
    container: str
    agent_metadata: str = field(repr=False)
    deadline_ms: int
    deployment: str = ""
    traceparent: str = ""


@dataclass(frozen=True, kw_only=True)
class RememberedDispatch(DispatchRef):
    """What a web process or an agent knows of a dispatch whose record Redis does not have.

    `age_ms` since the request, `deadline_ms` from now on; the rest only an agent knows.
    """

    state: State
    container: str
    agent_metadata: str = field(repr=False)
    age_ms: int
    deadline_ms: int
    job_id: str = ""
    agent_server_id: str = ""
    agent_container: str = ""
    agent_identity: str = ""


@dataclass(frozen=True, kw_only=True)
class AgentServerReport:
    """What an agent server says of itself every few seconds.

    `takes` is how many jobs its own load report lets it take just now, and `starts` how many more
    agents it can have joining at the same time; None: as many as it has slots.
    """

    agent_server_id: str
    agent_name: str
    container: str
    client_id: str
    slots: int
    used_slots: int
    load: float
    draining: bool
    registered: bool
    takes: int | None = None
    starts: int | None = None
    cannot_start: bool = False  # no process for a job can be started there; it refuses every job
    deployment: str = ""  # its LIVEKIT_AGENT_DEPLOYMENT: LiveKit sends it jobs of that one only

    @property
    def online(self) -> bool:
        """True when LiveKit can offer it jobs: registered there, and able to run them."""
        return self.registered and not self.draining and not self.cannot_start

    def serves(
        self, *, client_id: str, agent_name: str, container: str, deployment: str | None = None
    ) -> bool:
        """True when it takes such jobs; `container` is empty, `deployment` None where any will do.

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
        """Jobs that it can still take."""
        if not self.online:
            return 0
        free = max(0, self.slots - self.used_slots)
        return min(left for left in (free, self.takes, self.starts) if left is not None)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What one client may ask for; 0 is as much as it likes."""

    requests_per_minute: int = 0  # as many at once at most, and evenly refilled
    max_sessions: int = 0  # dispatches that have not ended
    bucket: str = ""  # in which its requests are counted, where that is not the client's own

    def of_publishable_keys(self) -> Limits:
        """What everybody's browsers may use up of it together.

        Their requests are counted apart, and the last quarter of the sessions is left to the
        client's own servers: a publishable key is in everybody's hands.
        """
        kept = self.max_sessions // 4
        return Limits(
            requests_per_minute=self.requests_per_minute,
            max_sessions=self.max_sessions - kept,
            bucket="publishable",
        )


NO_LIMITS: Final = Limits()
