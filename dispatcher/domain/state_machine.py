"""The transitions that a dispatch's record may go through, and the states that each starts from."""

from __future__ import annotations

from typing import Final

from dispatcher.domain.models import IN_FLIGHT, PENDING, TERMINAL, UNSENT, State, Transition

_JOINED: Final = frozenset({State.JOINED})
_UNCLAIMED: Final = frozenset({State.DISPATCHING, State.DISPATCHED, State.OFFERED})
_CLAIMED: Final = frozenset({State.ACCEPTED, State.JOINED, State.LEAVING})

DISPATCH_STARTED: Final = Transition(event="dispatching", moves=UNSENT, to=State.DISPATCHING)
DISPATCH_CREATED: Final = Transition(
    event="dispatched",
    moves=frozenset({State.DISPATCHING}),
    to=State.DISPATCHED,
    notes=frozenset({State.OFFERED, State.ACCEPTED, State.JOINED}),
)
ACCEPTED: Final = Transition(event="accepted", moves=_UNCLAIMED, to=State.ACCEPTED)
# LiveKit brought the agent by a token while Redis was away, or Redis has lost the record.
ADOPTED: Final = Transition(event="adopted", moves=UNSENT | _UNCLAIMED, to=State.ACCEPTED)
REJECTED: Final = Transition(
    event="rejected",
    moves=frozenset({State.DISPATCHING, State.DISPATCHED}),
    to=State.OFFERED,
    notes=frozenset({State.OFFERED}),
)
AGENT_CONNECTED: Final = Transition(event="agent_connected", to=State.ACCEPTED, notes=_CLAIMED)
JOINED: Final = Transition(event="joined", moves=IN_FLIGHT | {State.DELEGATED}, to=State.JOINED)
# Of agents that report nothing themselves: the room has another one than the record names ...
AGENT_ADOPTED: Final = Transition(event="agent_adopted", to=State.JOINED, notes=_JOINED)
# ... and, of any kind of agent: the room has a second one.
SURPLUS_AGENT: Final = Transition(event="surplus_agent", to=State.JOINED, notes=_JOINED)
# An agent of the same name that another backend has sent: it carries no dispatch id of Usher's.
FOREIGN_AGENT: Final = Transition(event="foreign_agent", to=State.JOINED, notes=IN_FLIGHT | _JOINED)
# The agent program has ended its session, or all people have left. The agent stays in the room
# while the program's `on_session_end` runs, and no longer answers.
AGENT_LEAVING: Final = Transition(event="agent_leaving", moves=_JOINED, to=State.LEAVING)
AGENT_LEFT: Final = Transition(event="agent_left", moves=_CLAIMED, to=State.ENDED)
# A person is back, or a caller has asked again, since all people left the agent.
CAME_BACK: Final = Transition(
    event="came_back", moves=_CLAIMED, to=State.QUEUED, new_generation=True
)
# The agent program raised, or its process died, before the agent joined.
AGENT_CRASHED: Final = Transition(
    event="agent_crashed", moves=IN_FLIGHT, to=State.QUEUED, new_generation=True
)
# Giving an attempt up raises the generation in the same step, so that any remains of that attempt,
# such as an offer on its way or an agent about to join, meet the fence.
WAIT: Final = Transition(
    event="waiting",
    moves=IN_FLIGHT | {State.QUEUED, State.DELEGATED},
    to=State.WAITING,
    new_generation=True,
)
# LiveKit answered no try. A job that it has offered nevertheless is not given up.
UNREACHED: Final = Transition(
    event="livekit_unreachable",
    moves=frozenset({State.DISPATCHING}),
    to=State.WAITING,
    new_generation=True,
)
STILL_WAITING: Final = Transition(
    event="still_waiting", to=State.WAITING, notes=frozenset({State.WAITING})
)
NEXT_GENERATION: Final = Transition(
    event="requeued", moves=IN_FLIGHT, to=State.QUEUED, new_generation=True
)
REDISPATCH: Final = Transition(
    event="redispatch",
    moves=frozenset({State.JOINED, State.LEAVING, *TERMINAL}),
    to=State.QUEUED,
    new_generation=True,
    anew=True,
)
FAILED: Final = Transition(event="failed", moves=PENDING | _JOINED, to=State.FAILED)
# The agent was lost while a person was in the room ...
AGENT_LOST: Final = Transition(
    event="agent_lost", moves=_JOINED, to=State.QUEUED, new_generation=True
)
# ... and while no person was.
ROOM_OVER: Final = Transition(
    event="ended",
    moves=frozenset({State.JOINED, State.LEAVING, State.DELEGATED}),
    to=State.ENDED,
)
NOBODY_CAME: Final = Transition(
    event="cancelled", moves=frozenset({State.ACCEPTED, State.JOINED}), to=State.CANCELLED
)
# The client cancels, from any state. Only a redispatch moves a cancelled record, so a claim, a join
# or a late answer of LiveKit's that is still in flight changes nothing.
CANCEL: Final = Transition(
    event="cancelled_by_client",
    moves=PENDING | {State.JOINED, State.LEAVING},
    to=State.CANCELLED,
)
REDISPATCH_REQUESTED: Final = Transition(
    event="redispatch_requested", to=State.JOINED, notes=_JOINED
)
REDISPATCH_REFUSED: Final = Transition(
    event="redispatch_refused", to=State.JOINED, notes=PENDING | _JOINED
)
