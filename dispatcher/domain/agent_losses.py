"""What the loss of an agent means for its session: over, replaced, or parked. Pure."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from dispatcher.domain.failure_reasons import Reason
from dispatcher.domain.models import Dispatch, FailureReason, State
from dispatcher.domain.rooms import RoomView, agent_to_keep
from dispatcher.domain.timing import STILL_TO_COME_S

# `Dispatch.left_by` of an agent whose people have left, as its job tells it.
PEOPLE_LEFT: Final = "people_left"
CRASHED: Final = "crashed"  # the outcome of an attempt whose agent program raised or died
# An agent that has lived for so long is no part of a series of deaths.
LONG_LIFE_S: Final = 60.0


def crashes_in_a_row(dispatch: Dispatch) -> int:
    """How many of its latest attempts have ended before the agent was in the room, by a crash."""
    since = range(dispatch.first_generation, dispatch.generation)
    before = [attempt for attempt in dispatch.attempts if attempt.generation in since]
    crashed = [a.outcome == CRASHED for a in sorted(before, key=lambda a: -a.generation)]
    return crashed.index(False) if False in crashed else len(crashed)


def why_crashed(dispatch: Dispatch) -> Reason:
    """Why a dispatch is given up whose agent program crashes again and again."""
    return Reason(
        code=FailureReason.AGENT_CRASHED,
        message=f"{crashes_in_a_row(dispatch)} times in a row; the last time: "
        f"{dispatch.failure_message}",
    )


class Verdict(StrEnum):
    """What becomes of a joined dispatch whose lease has run out."""

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
    """What to do with a joined dispatch whose agent has not been heard of.

    LiveKit lists a dead agent as ACTIVE for 21 s, so for an agent that renews leases its silence
    counts, not the list; for one that does not (`fenced` is false) the list is all there is. It
    may wait for a person to come back, as one that renews does: LiveKit closes the room some time
    after the last one has left. A person who has not come yet shall find an agent.
    """
    if not fenced and agent_to_keep(dispatch, room.agents) is not None:
        return Verdict.ALIVE
    if fenced and dispatch.read_at_ms < dispatch.alive_till_ms:
        return Verdict.ALIVE
    if dispatch.state is State.LEAVING:
        # Its session was over already, unless the people have come back who had left.
        came_back = room.people > 0 and dispatch.left_by == PEOPLE_LEFT
        return Verdict.REPLACE if came_back else Verdict.OVER
    waited_s = (dispatch.read_at_ms - dispatch.created_at_ms) / 1000
    asked_s = (dispatch.read_at_ms - dispatch.asked_at_ms) / 1000
    awaited = asked_s < STILL_TO_COME_S or (not dispatch.person_seen and waited_s < abandon_after_s)
    if room.people == 0 and not awaited:
        return Verdict.OVER
    return Verdict.PARK if losses_in_a_row(dispatch) > max_losses else Verdict.REPLACE


def losses_in_a_row(dispatch: Dispatch) -> int:
    """How many agents of this dispatch have died soon after joining, the present one included."""
    # By Redis's clock, as everything else here: LiveKit's may be minutes off.
    joined_at_ms = dispatch.joined_seen_at_ms or dispatch.joined_at_ms or 0
    lived_s = (dispatch.read_at_ms - joined_at_ms) / 1000
    return 1 if lived_s >= LONG_LIFE_S else dispatch.losses + 1
