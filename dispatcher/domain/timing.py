"""Time-outs and grace periods of a dispatch, and the times that a record implies. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from dispatcher.domain.models import END_MARGIN_S, Dispatch, State

# Grace for an agent that is late to report itself alive: Redis may have been away, and then no
# agent could report.
GRACE_S: Final = 4.0
# A caller who has asked again within this time counts as still to come, although the room is empty.
STILL_TO_COME_S: Final = 20.0
# Three tries with the LiveKit time-out, the waits between them, and a margin: a record that has
# been `dispatching` for longer has lost its worker.
DISPATCHING_LEASE_S: Final = 12.0
# Time from the end of a verification until the sweeper looks at its record again.
VERIFY_GRACE_S: Final = 2.0
# Agent servers with their own load report are sent a few jobs at a time, which LiveKit offers
# within 0.25 s. Above their load threshold they refuse by themselves, without a report to Usher.
OWN_LOAD_OFFER_TIMEOUT_S: Final = 0.8

_SOON_S: Final = 0.05
# A record may have been read this long before its room was looked at.
_LOOK_MS: Final = 2_000


@dataclass(frozen=True, kw_only=True)
class Timings:
    """The time-outs that settings change, in seconds; `settings.timings` reads them."""

    verify_timeout_s: float  # a dispatched agent has so long to join, and an accepted one again
    verify_poll_s: float  # interval between looks at the room while the agent reports nothing
    offer_timeout_s: float  # a job that LiveKit has not offered by then counts as dropped
    wake_grace_s: float  # after so long the sweeper wakes a worker again for a queued record
    retention_s: float  # how long an ended record can be read

    @property
    def own_load_offer_timeout_s(self) -> float:
        """`offer_timeout_s` for agents whose agent servers all have their own load report."""
        return min(OWN_LOAD_OFFER_TIMEOUT_S, self.offer_timeout_s)


def time_is_up(dispatch: Dispatch) -> bool:
    """Return True when the record must end now to end before its deadline."""
    return dispatch.remaining_s <= END_MARGIN_S


def look_again_in_s(dispatch: Dispatch, wait_s: float) -> float:
    """Return the seconds until the next look at a waiting record: `wait_s`, or its time left."""
    return max(_SOON_S, min(wait_s, dispatch.remaining_s - END_MARGIN_S))


def unchanged_s(dispatch: Dispatch) -> float:
    """Return how many seconds the record had been unchanged when it was read."""
    return (dispatch.read_at_ms - dispatch.updated_at_ms) / 1000


def time_to_join(dispatch: Dispatch, joined_at_ms: int) -> int:
    """Return the time from the request until the agent joined, in ms.

    `joined_at_ms` is LiveKit's clock. Where the result cannot be true the two clocks differ, and
    the time of the read counts: the agent has joined by then.
    """
    until_now_ms = dispatch.read_at_ms - dispatch.requested_at_ms
    by_livekit_ms = joined_at_ms - dispatch.requested_at_ms
    possible = 0 <= by_livekit_ms <= until_now_ms + _LOOK_MS
    return by_livekit_ms if possible else max(0, until_now_ms)


def is_silent(dispatch: Dispatch) -> bool:
    """Return True when its agent, not yet seen in the room, has stopped reporting itself alive.

    LiveKit lists a dead agent for 21 s. The grace covers an outage of Redis, in which no agent can
    report.
    """
    return dispatch.alive_till_ms > 0 and silent_in_s(dispatch) < 0


def silent_in_s(dispatch: Dispatch) -> float:
    """Return in how many seconds its agent counts as silent; infinite before its first report.

    0 while no agent server has accepted the job.
    """
    if dispatch.state is not State.ACCEPTED:
        return 0.0
    if dispatch.alive_till_ms == 0:
        return math.inf
    return (dispatch.alive_till_ms - dispatch.read_at_ms) / 1000 + GRACE_S


def is_starting(dispatch: Dispatch) -> bool:
    """Return True while its job reports itself alive and has not connected: it starts slowly.

    Only the session's deadline limits a slow start.
    """
    return (
        dispatch.state is State.ACCEPTED
        and not dispatch.agent_identity
        and dispatch.alive_till_ms > 0
        and not is_silent(dispatch)
    )
