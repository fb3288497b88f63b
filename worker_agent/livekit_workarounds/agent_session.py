"""See that a job's primary `AgentSession` closes: its agent hears nothing from then on.

For livekit-agents 1.8 (1.8.9, voice/agent_session.py `AgentSession._close_soon`:
https://github.com/livekit/agents/blob/main/livekit-agents/livekit/agents/voice/agent_session.py).
Its event `close` is public, and comes when everything is torn down, which takes seconds; that it
has begun to close is in `_closing_task`. A session may be started again afterwards (`_started`).

Guard: with other names the close is known by its event, and the log says so.
Remove when `AgentSession` has an event for the beginning of its close.
"""

from __future__ import annotations

from typing import Any

from livekit.agents import AgentSession, JobContext

from worker_agent.livekit_workarounds import unknown_release


def primary(ctx: JobContext) -> AgentSession[Any] | None:
    """Return the job's primary session, if the program has started one."""
    try:
        return ctx.primary_session
    except (RuntimeError, AttributeError):  # none yet; or an older livekit-agents has no such name
        return None


def is_closing(session: AgentSession[Any]) -> bool:
    """True from the moment at which it begins to close; false where that cannot be known."""
    try:
        task = session._closing_task  # kept when it is done, and the session started again
    except AttributeError:
        unknown_release.warn("livekit-agents", "the close of an AgentSession is known seconds late")
        return False
    return task is not None and not task.done()


def is_open(session: AgentSession[Any]) -> bool:
    """True while it runs; false where that cannot be known."""
    return bool(getattr(session, "_started", False)) and not is_closing(session)


def has_closed(session: AgentSession[Any]) -> bool:
    """True when it has been open, and is so no longer; false where that cannot be known."""
    return getattr(session, "_started_at", None) is not None and not getattr(
        session, "_started", True
    )
