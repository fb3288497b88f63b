"""Decide what follows when a session loses its agent: end, replacement or parking. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from dispatcher.domain.failure_reasons import Reason
from dispatcher.domain.models import Dispatch, FailureReason, State
from dispatcher.domain.rooms import RoomView, agent_to_keep
from dispatcher.domain.timing import STILL_TO_COME_S

# `Dispatch.left_by` of an agent that leaves because all people have left, as its job reports it.
PEOPLE_LEFT: Final = "people_left"
CRASHED: Final = "crashed"  # the outcome of an attempt whose agent program raised or died
# An agent that has lived for so long does not count as one of a series of losses.
LONG_LIFE_S: Final = 60.0


def crashes_in_a_row(dispatch: Dispatch) -> int:
    """Return how many of the latest attempts in a row have crashed before the agent joined."""
    since = range(dispatch.first_generation, dispatch.generation)
    before = [attempt for attempt in dispatch.attempts if attempt.generation in since]
    crashed = [a.outcome == CRASHED for a in sorted(before, key=lambda a: -a.generation)]
    return crashed.index(False) if False in crashed else len(crashed)


def why_crashed(dispatch: Dispatch) -> Reason:
    """Return the reason for failing a dispatch after repeated crashes of its agent program."""
    return Reason(
        code=FailureReason.AGENT_CRASHED,
        message=f"{crashes_in_a_row(dispatch)} times in a row; the last time: "
        f"{dispatch.failure_message}",
    )


class Verdict(StrEnum):
    """What the supervision does with a joined dispatch after its lease has run out."""

    ALIVE = "alive"
    OVER = "over"
    REPLACE = "replace"
    PARK = "park"


def judge(
    dispatch: Dispatch,
    room: RoomView,
    *,
    fenced: bool,
    max_losses: int,
    abandon_after_s: float,
) -> Verdict:
    """Decide about a joined dispatch whose agent has not renewed its lease.

    LiveKit lists a dead agent as ACTIVE for 21 s. Of an agent that renews leases (`fenced`) the
    lease decides, not the list; of any other agent there is only the list. Both kinds may wait
    for a person to come back: LiveKit closes the room some time after the last person has left.
    A person who is still to come gets an agent.
    """
    if not fenced and agent_to_keep(dispatch, room.agents) is not None:
        return Verdict.ALIVE
    if fenced and dispatch.read_at_ms < dispatch.alive_till_ms:
        return Verdict.ALIVE
    if dispatch.state is State.LEAVING:
        # The session was over already, unless people had left and have come back.
        came_back = room.people > 0 and dispatch.left_by == PEOPLE_LEFT
        return Verdict.REPLACE if came_back else Verdict.OVER
    waited_s = (dispatch.read_at_ms - dispatch.created_at_ms) / 1000
    asked_s = (dispatch.read_at_ms - dispatch.asked_at_ms) / 1000
    awaited = asked_s < STILL_TO_COME_S or (not dispatch.person_seen and waited_s < abandon_after_s)
    if room.people == 0 and not awaited:
        return Verdict.OVER
    return Verdict.PARK if losses_in_a_row(dispatch) > max_losses else Verdict.REPLACE


def losses_in_a_row(dispatch: Dispatch) -> int:
    """Return how many agents in a row died soon after joining, the present one included."""
    # By Redis's clock, like all times here: LiveKit's clock may be minutes off.
    joined_at_ms = dispatch.joined_seen_at_ms or dispatch.joined_at_ms or 0
    lived_s = (dispatch.read_at_ms - joined_at_ms) / 1000
    return 1 if lived_s >= LONG_LIFE_S else dispatch.losses + 1
