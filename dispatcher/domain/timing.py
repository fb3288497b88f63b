"""The time-outs and graces of a dispatch, and what the clock makes of a record. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from dispatcher.domain.models import END_MARGIN_S, Dispatch, State

# An agent that was to say that it is alive has so long still before it counts as silent: Redis may
# have been away, and no agent could tell it anything.
GRACE_S: Final = 4.0
# A caller who has asked again so lately for a session is still to come, although nobody is there.
STILL_TO_COME_S: Final = 20.0
# Three tries of the LiveKit time-out and the waits between them, and some air: a record that has
# been `dispatching` for longer has lost its worker.
DISPATCHING_LEASE_S: Final = 12.0
# How long after the end of a verification its record is looked at again.
VERIFY_GRACE_S: Final = 2.0
# Agent servers with a load report of their own are sent a few at a time, which LiveKit offers
# within 0.25 s; and they refuse by themselves, without a word to us, whenever that load is high.
OWN_LOAD_OFFER_TIMEOUT_S: Final = 0.8

_SOON_S: Final = 0.05
# A record may have been read so long before its room was looked at.
_LOOK_MS: Final = 2_000


@dataclass(frozen=True, kw_only=True)
class Timings:
    """The time-outs that settings change, in seconds; `settings.timings` reads them.

    Attributes:
        verify_timeout_s: how long a dispatched agent has to join, and an accepted one again.
        verify_poll_s: how often the room is looked at while nothing is heard of the agent.
        offer_timeout_s: a job that LiveKit has not offered by then has been dropped.
        wake_grace_s: a queued record that nobody has touched for so long is woken again.
        retention_s: how long an ended record can be read.
    """

    verify_timeout_s: float
    verify_poll_s: float
    offer_timeout_s: float
    wake_grace_s: float
    retention_s: float

    @property
    def own_load_offer_timeout_s(self) -> float:
        """As `offer_timeout_s`, where every agent server reports a load of its own."""
        return min(OWN_LOAD_OFFER_TIMEOUT_S, self.offer_timeout_s)


def time_is_up(dispatch: Dispatch) -> bool:
    """True when the record must end now to end before its deadline."""
    return dispatch.remaining_s <= END_MARGIN_S


def look_again_in_s(dispatch: Dispatch, wait_s: float) -> float:
    """When to look at a waiting record again: after `wait_s`, or when its time is up."""
    return max(_SOON_S, min(wait_s, dispatch.remaining_s - END_MARGIN_S))


def unchanged_s(dispatch: Dispatch) -> float:
    """How long the record had stood as it is when it was read."""
    return (dispatch.read_at_ms - dispatch.updated_at_ms) / 1000


def time_to_join(dispatch: Dispatch, joined_at_ms: int) -> int:
    """How long it has taken until its agent was there, in ms; `joined_at_ms` is LiveKit's clock.

    Where that cannot be, the two clocks differ, and what is certain counts: it is there by now.
    """
    until_now_ms = dispatch.read_at_ms - dispatch.requested_at_ms
    by_livekit_ms = joined_at_ms - dispatch.requested_at_ms
    possible = 0 <= by_livekit_ms <= until_now_ms + _LOOK_MS
    return by_livekit_ms if possible else max(0, until_now_ms)


def is_silent(dispatch: Dispatch) -> bool:
    """True when its agent has said that it is alive before it was seen, and says so no more.

    LiveKit lists a dead one for 21 s. The grace is for a Redis that no agent could tell anything.
    """
    return dispatch.alive_till_ms > 0 and silent_in_s(dispatch) < 0


def silent_in_s(dispatch: Dispatch) -> float:
    """When its agent would be silent; without an end while it has not said yet that it is alive.

    0 while no agent server has accepted the job.
    """
    if dispatch.state is not State.ACCEPTED:
        return 0.0
    if dispatch.alive_till_ms == 0:
        return math.inf
    return (dispatch.alive_till_ms - dispatch.read_at_ms) / 1000 + GRACE_S


def is_starting(dispatch: Dispatch) -> bool:
    """True while its job says that it lives, and has not connected yet: a slow start is no death.

    The session's deadline bounds it, and nothing else.
    """
    return (
        dispatch.state is State.ACCEPTED
        and not dispatch.agent_identity
        and dispatch.alive_till_ms > 0
        and not is_silent(dispatch)
    )
