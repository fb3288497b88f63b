"""Decide what the end of a job means: the program's own wish, its people's leaving, or a loss.

Pure functions of what livekit-agents and livekit-rtc say. Only the agent program itself, or its
people, end a session; everything else that ends an agent is a loss, and the agent is replaced.
"""

from __future__ import annotations

import sysconfig
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from livekit import rtc

from dispatcher.domain.timing import STILL_TO_COME_S

# When all people present have come within so long, just as another one left, a program that ends
# its session means the one who has left: it has hardly met the others.
RETURNED_S: Final = 3.0
# LiveKit tells an agent up to 3 s late that a person has left who published nothing (livekit-server
# 1.13.5, `subscriberUpdateInterval`); a caller may have asked again meanwhile.
ASKED_SLACK_S: Final = 3.5


class Cause(StrEnum):
    """The cause of a job's end."""

    PROGRAM = "program"
    PEOPLE_LEFT = "people_left"
    LOST = "lost"


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The end of an agent; `reason` is for people, and has no text of an exception.

    `blameless`: of a loss that the agent program has not caused.
    """

    cause: Cause
    reason: str
    blameless: bool = False


@dataclass(frozen=True, kw_only=True)
class People:
    """The people with an agent: how many, since when, and how long ago one has left.

    `left_ago_s` is None when none has; `there_s` is how long the first of them is there.
    """

    present: int
    left_ago_s: float | None = None
    there_s: float = 0.0

    @property
    def were_met(self) -> bool:
        """True when the agent has met a person, who may have left since."""
        return self.present > 0 or self.left_ago_s is not None

    @property
    def have_returned(self) -> bool:
        """True when all who are there came just after another person, or they, had left."""
        return (
            self.present > 0
            and self.there_s < RETURNED_S
            and self.left_ago_s is not None
            and self.left_ago_s < RETURNED_S
        )

    @property
    def asked_within_s(self) -> float | None:
        """The seconds within which a caller's request still expects an agent; None: none does.

        While people are there they have the agent's own word. Before any has come, a caller that
        has asked for the session again is still to come.
        """
        if self.present > 0:
            return None
        return STILL_TO_COME_S if self.left_ago_s is None else self.left_ago_s + ASKED_SLACK_S


ROOM_DELETED: Final = Ending(cause=Cause.PROGRAM, reason="room deleted")
ROOM_CLOSED: Final = Ending(cause=Cause.PEOPLE_LEFT, reason="LiveKit has closed the empty room")
# LiveKit's reasons when the agent's room is over. Every other reason is a loss: the agent lost
# LiveKit, or LiveKit the agent, or another backend has removed it
# (livekit/protocol, livekit_models.proto `DisconnectReason`).
_ROOM_OVER: Final[Mapping[int, Ending]] = {
    rtc.DisconnectReason.ROOM_DELETED: ROOM_DELETED,
    rtc.DisconnectReason.CLIENT_INITIATED: Ending(
        cause=Cause.PROGRAM, reason="the program has left the room"
    ),
    rtc.DisconnectReason.ROOM_CLOSED: ROOM_CLOSED,
}
# The reasons of livekit-agents (1.8.9, ipc/job_proc_lazy_main.py) for a shutdown that the program
# has not asked for.
_NOT_ASKED_FOR: Final = frozenset(
    {"", "job crashed", "parent process shutdown", "room disconnected"}
)


def of_disconnect(reason: rtc.DisconnectReason.ValueType) -> Ending:
    """Decide which ending a disconnected room means."""
    known = _ROOM_OVER.get(reason)
    if known is not None:
        return known
    return Ending(
        cause=Cause.LOST,
        reason=f"disconnected from LiveKit ({rtc.DisconnectReason.Name(reason)})",
        blameless=True,
    )


def of_shutdown(reason: str, *, asked_for: bool) -> Ending:
    """Decide which ending a shutdown by livekit-agents means; the program may have asked for it.

    A room that disconnects has its own reason (`of_disconnect`), and an entry point that raises
    its exception (`of_exception`): both are known before.
    """
    if asked_for:
        return Ending(cause=Cause.PROGRAM, reason=reason)
    return Ending(
        cause=Cause.LOST,
        reason="its agent server has ended it: stopped, or its drain time over",
        blameless=True,
    )


def of_shutdown_callback(reason: str) -> Ending:
    """Decide as `of_shutdown`, by the reason alone: a shutdown callback is told no more."""
    return of_shutdown(reason, asked_for=reason not in _NOT_ASKED_FOR)


def of_exception(error: BaseException) -> Ending:
    """Make the ending that an exception of the entry point means: type and place, not the text."""
    return Ending(
        cause=Cause.LOST,
        reason=f"the agent program raised {type(error).__name__}{_place(error)}",
        blameless=isinstance(error, rtc.ConnectError),
    )


def _place(error: BaseException) -> str:
    """` at module:line`: the innermost line of the program itself, not of a library."""
    frames = [
        (frame.f_globals.get("__name__", ""), frame.f_code.co_filename, line)
        for frame, line in traceback.walk_tb(error.__traceback__)
    ]
    # A program that is installed like a library has no line of its own but those of libraries.
    own = [frame for frame in frames if _is_programs(*frame[:2])] or [
        frame for frame in frames if not frame[0].startswith(_NOT_THE_PROGRAM)
    ]
    if not own:
        return ""
    module, file_name, line = own[-1]
    if module in ("__main__", "__mp_main__"):
        module = Path(file_name).stem
    return f" at {module}:{line}"


_LIBRARIES: Final = tuple(
    sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


_NOT_THE_PROGRAM: Final = (
    "worker_agent.session",
    "worker_agent.program",
    "worker_agent.livekit_workarounds.",
    "livekit.",
    "asyncio.",
)


def _is_programs(module: str, file_name: str) -> bool:
    return not module.startswith(_NOT_THE_PROGRAM) and not file_name.startswith(_LIBRARIES)
