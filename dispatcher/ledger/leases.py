"""Leases of the agents in their sessions, and dispatches that wait for an agent.

An agent renews its dispatch's lease about once a second; `lifecycle/supervision.py` looks into a
lease that has run out. Time alone decides nothing: replacing an agent raises the generation, and an
agent that comes back too late finds itself stale.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from dispatcher.domain.models import Dispatch, DispatchRef
from dispatcher.domain.timing import GRACE_S, STILL_TO_COME_S
from dispatcher.ledger import celery_messages, keys
from dispatcher.ledger.step import Step

RENEW_S: Final = 0.8
LEASE_S: Final = 3.0
# Lease until an agent's first renewal: in a burst LiveKit lists the agent seconds before its own
# process renews.
FIRST_LEASE_S: Final = 6.0
# With no look for ended leases for so long, Redis was away, and perhaps no agent could renew.
GAP_S: Final = 1.5
# A worker that was woken for a lost agent looks within this time, or its message is lost.
LOOKED_AT_S: Final = 2.0


class Renewal(StrEnum):
    """The ledger's answer to an agent's renewal."""

    OK = "ok"
    STALE = "stale"
    UNKNOWN = "unknown"
    ABANDONED = "abandoned"  # no person has ever come
    DESERTED = "deserted"  # all people have left, and none has come back
    SUPERSEDED = "superseded"  # it is leaving, and another dispatch now serves the room


def renew(
    ref: DispatchRef,
    *,
    job_id: str,
    people: int,
    abandon_after_s: float,
    deserted_after_s: float,
    met: bool = False,
) -> Step[Renewal]:
    """Renew the lease of the agent of `job_id`, with that many people in the room.

    Args:
        people: -1 when the agent is cut off from LiveKit and cannot see the room.
        met: the agent has met a person before.
    """
    return Step(
        "renew",
        (
            keys.record(ref.dispatch_id),
            keys.LEASES,
            keys.live(ref.client_id, ref.agent_name, ref.room_name),
        ),
        (
            ref.dispatch_id,
            str(ref.generation),
            job_id,
            str(people),
            str(int(LEASE_S * 1000)),
            str(int(abandon_after_s * 1000)),
            str(int(deserted_after_s * 1000)),
            "1" if met else "0",
            str(int(STILL_TO_COME_S * 1000)),
        ),
        Renewal,
    )


def claim_ended(*, limit: int, push_s: float) -> Step[list[str]]:
    """Take up to `limit` dispatch ids whose lease has run out, and push their leases on."""
    return Step(
        "claim_leases",
        (keys.LEASES, keys.LEASES_LOOKED_AT),
        (
            str(limit),
            *(str(int(time_s * 1000)) for time_s in (push_s, GAP_S, GRACE_S)),
            keys.RECORD_PREFIX,
        ),
        list,
    )


def look_again(dispatch_id: str, *, in_s: float) -> Step[int]:
    """Have a worker look into the room of a dispatch with an agent, regardless of its renewals."""
    return Step(
        "look_again",
        (keys.record(dispatch_id), keys.LEASES),
        (dispatch_id, str(int(in_s * 1000))),
        int,
    )


def looked(dispatch: Dispatch) -> Step[int]:
    """Note that a worker has looked since `dispatch` was read, and has seen the agent.

    0 is the answer when another look was asked for meanwhile.
    """
    return Step(
        "looked",
        (keys.record(dispatch.dispatch_id), keys.LEASES),
        (dispatch.dispatch_id, str(dispatch.look_at_ms)),
        int,
    )


def lapse(ref: DispatchRef, *, job_id: str, loss: str, met: bool = False) -> Step[int]:
    """End the lease of `job_id` now, because its agent is lost, and wake a worker to look.

    0 is the answer when that job does not serve the dispatch, or is not in the room.

    Args:
        loss: how the agent ended, for people: "RuntimeError at agent:30".
        met: the agent has met a person before.
    """
    wake = celery_messages.supervise(ref.dispatch_id, ref.room_name)
    return Step(
        "lapse",
        (keys.record(ref.dispatch_id), keys.LEASES, wake.queue),
        (
            ref.dispatch_id,
            str(ref.generation),
            job_id,
            loss,
            wake.json(),
            str(int(LOOKED_AT_S * 1000)),
            "1" if met else "0",
        ),
        int,
    )


def on_their_way(
    client_id: str, agent_name: str, deployment: str = ""
) -> Step[tuple[int, int | None]]:
    """Return how many are on their way to that agent, and the limit after drops by LiveKit."""
    agent = (client_id, agent_name, deployment)
    return Step(
        "on_their_way",
        (keys.inflight(*agent), keys.window(*agent)),
        (),
        lambda reply: (reply[0], None if reply[1] is None else int(reply[1])),
    )


def waiting_ahead(agent_name: str) -> Step[dict[tuple[str, str], int]]:
    """Return how many dispatches with a caller wait for that agent, by client id and container."""
    return Step(
        "waiting_ahead",
        (keys.WAITING,),
        (keys.RECORD_PREFIX, agent_name),
        lambda reply: {
            (client_id, container): number
            for client_id, container, number in zip(
                reply[::3], reply[1::3], reply[2::3], strict=True
            )
        },
    )


def pick_waiting(*, limit: int, push_s: float) -> Step[list[str]]:
    """Return up to `limit` waiting dispatches: each client's oldest first, the clients in turn.

    Dispatches that no person has ever joined come last.
    """
    return Step(
        "pick_waiting",
        (keys.WAITING, keys.DUE),
        (str(limit), str(int(push_s * 1000)), keys.RECORD_PREFIX),
        list,
    )
