"""See that a job's primary `AgentSession` has closed: its agent answers no more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from livekit.agents import AgentSession, CloseEvent, CloseReason, JobContext
from livekit.agents.utils.aio import TaskSet

from worker_agent.ending import Cause, Ending
from worker_agent.livekit_workarounds import agent_session

# A program may start its `AgentSession` again, or end the job, after it has closed.
CLOSED_S: Final = 1.0
# A plain `AgentSession` closes when the person that it listens to leaves; its agent is deaf then.
LEFT: Final = Ending(
    cause=Cause.PEOPLE_LEFT, reason="its AgentSession has closed, because its person left"
)


class SessionClose:
    """Watches one job's session; belongs to the job's event loop."""

    def __init__(self, ctx: JobContext, closed: Callable[[Ending], None]) -> None:
        """`closed` is called with the ending once the agent hears nothing any more."""
        self._ctx = ctx
        self._closed = closed
        self._session: AgentSession[Any] | None = None
        self._tasks = TaskSet()

    def look(self) -> None:
        """Find the session, if the program has started it since the last look."""
        session = agent_session.primary(self._ctx)
        if session is not None and session is not self._session:
            self._session = session
            session.on("close", self._on_close)
            if agent_session.has_closed(session):  # since the last look
                self._tasks.create_task(self._after_close(None))

    def person_left(self) -> None:
        """Look whether it closes for a person who has just left.

        The session decides that in its own handler of the same event; its `close` comes when all
        of it is torn down, which takes seconds.
        """
        asyncio.get_running_loop().call_soon(self._look_whether_it_closes)

    def _look_whether_it_closes(self) -> None:
        self.look()
        if self._session is not None and agent_session.is_closing(self._session):
            self._closed(LEFT)

    def _on_close(self, event: CloseEvent) -> None:
        if event.reason is CloseReason.PARTICIPANT_DISCONNECTED:
            self._closed(LEFT)
        elif event.reason is not CloseReason.JOB_SHUTDOWN:
            self._tasks.create_task(self._after_close(event))

    async def _after_close(self, event: CloseEvent | None) -> None:
        await asyncio.sleep(CLOSED_S)
        if self._session is not None and agent_session.is_open(self._session):
            return
        if event is not None and event.reason is CloseReason.ERROR:
            error = getattr(event.error, "error", event.error)
            reason = f"its AgentSession was closed by {type(error).__name__}"
            self._closed(Ending(cause=Cause.LOST, reason=reason))
        else:
            reason = "the program has closed its AgentSession"
            self._closed(Ending(cause=Cause.PROGRAM, reason=reason))
