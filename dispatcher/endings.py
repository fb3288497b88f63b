"""End a session that no person came to, or that all people have left.

A caller may have asked again for it since its room was looked into. With `unless_asked_for_s`
nothing is done (`wanted`) where that was within so many seconds: the caller was told "joined".
"""

from __future__ import annotations

from dispatcher import ledger
from dispatcher.ledger import Advanced, Step
from dispatcher.models import NOBODY_CAME, ROOM_OVER, DispatchRef, FailureReason


def nobody_came(
    ref: DispatchRef,
    *,
    waited_s: float,
    retention_s: int,
    unless_asked_for_s: float | None = None,
) -> Step[Advanced]:
    """`cancelled`: its agent has waited in vain."""
    return ledger.advance(
        ref,
        NOBODY_CAME,
        fields={
            "failure_reason": FailureReason.NOBODY_CAME,
            "failure_message": f"nobody has joined the room within {waited_s:.0f} s",
        },
        detail={"reason": FailureReason.NOBODY_CAME},
        retention_s=retention_s,
        unless_asked_for_s=unless_asked_for_s,
    )


def everybody_left(
    ref: DispatchRef,
    *,
    retention_s: int,
    reason: str = "nobody is in the room any more",
    unless_asked_for_s: float | None = None,
) -> Step[Advanced]:
    """`ended`."""
    return ledger.advance(
        ref,
        ROOM_OVER,
        detail={"reason": reason},
        retention_s=retention_s,
        unless_asked_for_s=unless_asked_for_s,
    )
