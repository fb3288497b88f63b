"""See that a job's primary `AgentSession` closes: its agent hears nothing from then on.

Its event `close` is public, and comes when everything is torn down, which takes seconds; that it
has begun to close is in `_closing_task` (livekit-agents 1.8.9, voice/agent_session.py
`_close_soon`). A session may be started again afterwards (`_started`).

Remove when `AgentSession` has an event for the beginning of its close.
"""

from __future__ import annotations

from typing import Any

from livekit.agents import AgentSession, JobContext


def primary(ctx: JobContext) -> AgentSession[Any] | None:
    """The job's primary session, if the program has started one."""
    try:
        return ctx.primary_session
    except (RuntimeError, AttributeError):  # none yet; or an older livekit-agents has no such name
        return None


def is_closing(session: AgentSession[Any]) -> bool:
    """True from the moment at which it begins to close; false where that cannot be known."""
    task = getattr(session, "_closing_task", None)  # kept when it is done, and the session started
    return task is not None and not task.done()


def is_open(session: AgentSession[Any]) -> bool:
    """True while it runs; false where that cannot be known."""
    return bool(getattr(session, "_started", False)) and not is_closing(session)


def has_closed(session: AgentSession[Any]) -> bool:
    """True when it has been open, and is so no longer; false where that cannot be known."""
    return getattr(session, "_started_at", None) is not None and not getattr(
        session, "_started", True
    )
