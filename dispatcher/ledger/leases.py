"""Which agents are alive in their sessions, and which dispatches wait for one?

An agent renews its dispatch's lease about once a second. A lease that runs out is looked into by
`lifecycle/supervision.py`. Time alone decides nothing: whoever replaces an agent raises the
generation, and an agent that comes back too late finds itself stale.
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
# Until an agent has said for the first time that it is alive: in a burst LiveKit lists it seconds
# before its own process comes to it.
FIRST_LEASE_S: Final = 6.0
# Nobody looked for ended leases for so long: Redis was away, and perhaps nobody could renew.
GAP_S: Final = 1.5
# A worker that was woken for a lost agent has looked by then, or its message is lost.
LOOKED_AT_S: Final = 2.0


class Renewal(StrEnum):
    """The ledger's answer to an agent that says it is alive."""

    OK = "ok"
    STALE = "stale"
    UNKNOWN = "unknown"
    ABANDONED = "abandoned"  # nobody has ever come
    DESERTED = "deserted"  # everybody has left, and nobody has come back
    SUPERSEDED = "superseded"  # it is leaving, and another dispatch serves the room by now


def renew(
    ref: DispatchRef,
    *,
    job_id: str,
    people: int,
    abandon_after_s: float,
    deserted_after_s: float,
    met: bool = False,
) -> Step[Renewal]:
    """Say that the agent of `job_id` is alive, with that many people in the room.

    Args:
        people: -1 when it is cut off from LiveKit just now and cannot say.
        met: it has met a person before.
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
    """Take up to `limit` dispatch ids whose lease has run out, and push it on."""
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
    """Have a worker look into the room of a dispatch with an agent, whatever that agent renews."""
    return Step(
        "look_again",
        (keys.record(dispatch_id), keys.LEASES),
        (dispatch_id, str(int(in_s * 1000))),
        int,
    )


def looked(dispatch: Dispatch) -> Step[int]:
    """Note that a worker has looked, since `dispatch` was read, and has seen the agent.

    0 is answered when another look was asked for meanwhile.
    """
    return Step(
        "looked",
        (keys.record(dispatch.dispatch_id), keys.LEASES),
        (dispatch.dispatch_id, str(dispatch.look_at_ms)),
        int,
    )


def lapse(ref: DispatchRef, *, job_id: str, loss: str) -> Step[int]:
    """Have the lease of `job_id` end now, because its agent is lost, and wake a worker to look.

    `loss` says what has become of it, for people: "RuntimeError at agent:30". 0 is answered when
    the record does not stand by that job, or it is not in the room.
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
        ),
        int,
    )


def on_their_way(
    client_id: str, agent_name: str, deployment: str = ""
) -> Step[tuple[int, int | None]]:
    """How many are on their way to that agent, and how many may be while LiveKit drops some."""
    agent = (client_id, agent_name, deployment)
    return Step(
        "on_their_way",
        (keys.inflight(*agent), keys.window(*agent)),
        (),
        lambda reply: (reply[0], None if reply[1] is None else int(reply[1])),
    )


def waiting_ahead(agent_name: str) -> Step[dict[tuple[str, str], int]]:
    """How many dispatches with a caller wait for that agent, by client id and container."""
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
    """Up to `limit` waiting dispatches: each client's oldest first, the clients in turn.

    Those that nobody has ever come to are the last.
    """
    return Step(
        "pick_waiting",
        (keys.WAITING, keys.DUE),
        (str(limit), str(int(push_s * 1000)), keys.RECORD_PREFIX),
        list,
    )
