"""Usher's agent server: livekit-agents with a request filter that explains itself.

An existing livekit-agents program becomes one with two lines, `from worker_agent import
rtc_session` and that in place of `@server.rtc_session`; one with `WorkerOptions` by `from
worker_agent import agent_server` and `cli.run_app(agent_server(WorkerOptions(...)))`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker_agent.program import agent_server as agent_server
    from worker_agent.program import rtc_session as rtc_session

__all__ = ["agent_server", "rtc_session"]


def __getattr__(name: str) -> object:
    # Imported when one of them is used: the modules here are also used one by one, and this one
    # brings the ledger along.
    if name in __all__:
        from worker_agent import program

        return getattr(program, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
