"""The changes that a dispatch's record may go through, and from which states."""

from __future__ import annotations

from typing import Final

from dispatcher.domain.models import IN_FLIGHT, PENDING, TERMINAL, UNSENT, State, Transition

DISPATCH_STARTED: Final = Transition(event="dispatching", moves=UNSENT, to=State.DISPATCHING)
DISPATCH_CREATED: Final = Transition(
    event="dispatched",
    moves=frozenset({State.DISPATCHING}),
    to=State.DISPATCHED,
    notes=frozenset({State.OFFERED, State.ACCEPTED, State.JOINED}),
)
ACCEPTED: Final = Transition(
    event="accepted",
    moves=frozenset({State.DISPATCHING, State.DISPATCHED, State.OFFERED}),
    to=State.ACCEPTED,
)
# An agent that LiveKit has brought by a token while Redis was away, or whose record Redis has lost.
ADOPTED: Final = Transition(
    event="adopted",
    moves=UNSENT | {State.DISPATCHING, State.DISPATCHED, State.OFFERED},
    to=State.ACCEPTED,
)
REJECTED: Final = Transition(
    event="rejected",
    moves=frozenset({State.DISPATCHING, State.DISPATCHED}),
    to=State.OFFERED,
    notes=frozenset({State.OFFERED}),
)
AGENT_CONNECTED: Final = Transition(
    event="agent_connected",
    moves=frozenset(),
    to=State.ACCEPTED,
    notes=frozenset({State.ACCEPTED, State.JOINED, State.LEAVING}),
)
JOINED: Final = Transition(event="joined", moves=IN_FLIGHT | {State.DELEGATED}, to=State.JOINED)
# For agents that report nothing themselves: another one in the room than the one it stood by ...
AGENT_ADOPTED: Final = Transition(
    event="agent_adopted", moves=frozenset(), to=State.JOINED, notes=frozenset({State.JOINED})
)
# ... and, of whatever kind, one too many.
SURPLUS_AGENT: Final = Transition(
    event="surplus_agent", moves=frozenset(), to=State.JOINED, notes=frozenset({State.JOINED})
)
# One of the same name that another backend has sent: it carries no dispatch of ours.
FOREIGN_AGENT: Final = Transition(
    event="foreign_agent",
    moves=frozenset(),
    to=State.JOINED,
    notes=IN_FLIGHT | {State.JOINED},
)
# The agent program has ended its session, or its people have left: the agent is still in the room,
# for as long as the program's `on_session_end` takes, and answers no more.
AGENT_LEAVING: Final = Transition(
    event="agent_leaving", moves=frozenset({State.JOINED}), to=State.LEAVING
)
AGENT_LEFT: Final = Transition(
    event="agent_left",
    moves=frozenset({State.ACCEPTED, State.JOINED, State.LEAVING}),
    to=State.ENDED,
)
# A person is there again, or has asked again, since that agent's people have left.
CAME_BACK: Final = Transition(
    event="came_back",
    moves=frozenset({State.ACCEPTED, State.JOINED, State.LEAVING}),
    to=State.QUEUED,
    new_generation=True,
)
# The agent program has raised, or its process has died, before it was in the room.
AGENT_CRASHED: Final = Transition(
    event="agent_crashed",
    moves=IN_FLIGHT,
    to=State.QUEUED,
    new_generation=True,
)
# Whoever gives an attempt up raises the generation in the same step, so that whatever is left of
# that attempt, an offer on its way or an agent about to join, meets the fence.
WAIT: Final = Transition(
    event="waiting",
    moves=IN_FLIGHT | {State.QUEUED, State.DELEGATED},
    to=State.WAITING,
    new_generation=True,
)
# LiveKit has answered no try. A job that it has offered all the same is not given up for that.
UNREACHED: Final = Transition(
    event="livekit_unreachable",
    moves=frozenset({State.DISPATCHING}),
    to=State.WAITING,
    new_generation=True,
)
STILL_WAITING: Final = Transition(
    event="still_waiting", moves=frozenset(), to=State.WAITING, notes=frozenset({State.WAITING})
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
FAILED: Final = Transition(event="failed", moves=PENDING | {State.JOINED}, to=State.FAILED)
# While a person is still in the room ...
AGENT_LOST: Final = Transition(
    event="agent_lost", moves=frozenset({State.JOINED}), to=State.QUEUED, new_generation=True
)
# ... and when nobody is.
ROOM_OVER: Final = Transition(
    event="ended",
    moves=frozenset({State.JOINED, State.LEAVING, State.DELEGATED}),
    to=State.ENDED,
)
NOBODY_CAME: Final = Transition(
    event="cancelled", moves=frozenset({State.ACCEPTED, State.JOINED}), to=State.CANCELLED
)
# By its client, from wherever it stands. Nothing moves a cancelled record but a redispatch, so
# whatever is in flight meets that: a claim, a join, an answer of LiveKit's that comes back.
CANCEL: Final = Transition(
    event="cancelled_by_client",
    moves=PENDING | {State.JOINED, State.LEAVING},
    to=State.CANCELLED,
)
REDISPATCH_REQUESTED: Final = Transition(
    event="redispatch_requested",
    moves=frozenset(),
    to=State.JOINED,
    notes=frozenset({State.JOINED}),
)
REDISPATCH_REFUSED: Final = Transition(
    event="redispatch_refused",
    moves=frozenset(),
    to=State.JOINED,
    notes=PENDING | {State.JOINED},
)
