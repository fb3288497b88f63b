"""Read from an `AgentServer` what it is set to, and whether it is connected to LiveKit.

For livekit-agents 1.8 (1.8.9, worker.py `AgentServer`:
https://github.com/livekit/agents/blob/main/livekit-agents/livekit/agents/worker.py), which has no
public names for these.

Guard: a name that is missing is answered with what is most likely, see each function.
Remove when `AgentServer` has properties for them.
"""

from __future__ import annotations

import os
from typing import TypeVar, cast

from livekit.agents import AgentServer, JobExecutorType

from worker_agent.livekit_workarounds import unknown_release

T = TypeVar("T")


def executor(server: AgentServer) -> JobExecutorType:
    """Return what each job runs in; where that cannot be known, a process."""
    consequence = "its agent servers are taken to run jobs in processes"
    return _read(server, "_job_executor_type", JobExecutorType.PROCESS, consequence)


def agent_name(server: AgentServer) -> str:
    """Return the agent's name; where that cannot be known, the one in LIVEKIT_AGENT_NAME."""
    default = os.environ.get("LIVEKIT_AGENT_NAME", "")
    return _read(
        server, "_agent_name", default, "the agent's name is taken from LIVEKIT_AGENT_NAME"
    )


def will_register(server: AgentServer) -> bool:
    """True when a server that is starting registers at LiveKit, as all but `console` do."""
    consequence = "`console` is reported as an agent server, too"
    return _read(server, "_conn_task", True, consequence) is not None


def is_connected(server: AgentServer) -> bool:
    """False from the moment at which the server has lost LiveKit until it has registered again."""
    consequence = "an agent server that has lost LiveKit is sent sessions"
    return not _read(server, "_connecting", False, consequence)


def _read(server: AgentServer, name: str, default: T, consequence: str) -> T:
    try:
        return cast(T, getattr(server, name))
    except AttributeError:
        unknown_release.warn("livekit-agents", consequence)
        return default
