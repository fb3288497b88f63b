"""Steps that end a session that no person joined, or that all people have left.

A caller may have asked again for it since its room was looked into. With `unless_asked_for_s`
nothing is done (`wanted`) where that was within so many seconds: the caller was told "joined".
"""

from __future__ import annotations

from dispatcher.domain.models import DispatchRef, FailureReason
from dispatcher.domain.state_machine import NOBODY_CAME, ROOM_OVER
from dispatcher.ledger import dispatches
from dispatcher.ledger.advance import Advance, Provided, Times
from dispatcher.ledger.dispatches import Advanced
from dispatcher.ledger.step import Step


def nobody_came(
    ref: DispatchRef,
    *,
    waited_s: float,
    retention_s: int,
    unless_asked_for_s: float | None = None,
) -> Step[Advanced]:
    """End the session as `cancelled`: its agent has waited in vain."""
    return dispatches.advance(
        Advance(
            ref,
            NOBODY_CAME,
            fields={
                "failure_reason": FailureReason.NOBODY_CAME,
                "failure_message": f"nobody has joined the room within {waited_s:.0f} s",
            },
            detail={"reason": FailureReason.NOBODY_CAME},
            times=Times(retention_s=retention_s),
            provided=Provided(unless_asked_for_s=unless_asked_for_s),
        )
    )


def everybody_left(
    ref: DispatchRef,
    *,
    retention_s: int,
    reason: str = "nobody is in the room any more",
    unless_asked_for_s: float | None = None,
) -> Step[Advanced]:
    """End the session as `ended`."""
    return dispatches.advance(
        Advance(
            ref,
            ROOM_OVER,
            detail={"reason": reason},
            times=Times(retention_s=retention_s),
            provided=Provided(unless_asked_for_s=unless_asked_for_s),
        )
    )
